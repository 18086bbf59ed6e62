"""Every scheme makes files that its own audit finds honest and another's does not."""

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.convert.audit import audit_file
from edgekd.convert.inference import run_model
from edgekd.convert.isolated import write_network
from edgekd.convert.parity import torch_logits
from edgekd.errors import BuildError
from edgekd.nn.quantized.model import quantize_model

# How far logits may be from the fake-quantized model's, as a share of their spread.
FILES = {
    ("tflite", "wi8_ai16"): 0.002,
    ("tflite", "wi8"): 0.1,
    ("tflite", "fp16"): 1e-4,
    ("onnx", "wi8_ai8_symmetric"): 0.1,
    ("onnx", "wi8_ai16"): 0.002,
    ("onnx", "wi8"): 1e-4,
    ("onnx", "fp16"): 0.01,
}


# x86 without VNNI adds int8 products inexactly where onnxruntime is not asked for exact sums; ARM boards add exactly.
KERNELS = {"tflite": "deployed", "onnx": "exact"}

QUICK = {("tflite", "wi8_ai16"), ("onnx", "wi8_ai8_symmetric")}


@pytest.mark.parametrize(
    ("file_format", "scheme"),
    [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in FILES],
)
def test_scheme_is_written_and_honest(images, tmp_path, file_format, scheme):
    quantized = quantize_model(images.student, images.inputs, scheme)
    quantized.calibrate(images.inputs.split(64))
    quantized.eval()
    path = tmp_path / f"model.{file_format}"
    write_network(quantized.network(), path)
    inputs = images.inputs[:100].numpy()
    expected = torch_logits(quantized, inputs)
    difference = np.abs(run_model(path, inputs, KERNELS[file_format]) - expected).max()
    assert difference <= FILES[file_format, scheme] * np.ptp(expected)
    audit = audit_file(path, scheme)
    assert audit.honest and not audit.findings, audit.findings
    assert audit.found_scheme == scheme.removesuffix("_symmetric")
    assert not audit_file(path, "fp32").honest
    if scheme != "wi8_ai8_symmetric":
        assert not audit_file(path, "wi8_ai8").honest


def test_tensorrts_scheme_has_no_tflite_form(images, tmp_path):
    quantized = quantize_model(images.student, images.inputs, "wi8_ai8_symmetric")
    quantized.calibrate(images.inputs.split(64))
    with pytest.raises(BuildError, match="has no TFLite form"):
        write_network(quantized.network(), tmp_path / "model.tflite")


def test_symmetric_grids_have_zero_point_0(images):
    quantized = quantize_model(images.student, images.inputs, "wi8_ai8_symmetric")
    quantized.calibrate(images.inputs.split(64))
    network = quantized.network()
    assert {tensor.grid.zero_point for tensor in network.tensors.values()} == {0}
    assert all(layer.bias.dtype == np.float32 for layer in network.layers if layer.bias is not None)


@pytest.mark.slow
def test_wider_activations_are_closer_to_float(images):
    with torch.no_grad():
        expected = images.student(images.inputs)
    errors = []
    for scheme in ("wi8_ai8", "wi8_ai16", "fp16", "fp32"):
        quantized = quantize_model(images.student, images.inputs, scheme)
        quantized.calibrate(images.inputs.split(64))
        with torch.no_grad():
            errors.append(float((quantized.eval()(images.inputs) - expected).square().mean()))
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_a_dead_layer_still_converts(tmp_path, suffix):
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(4, 3),
    ).eval()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-1.0)
        model[2].weight[0].zero_()
    inputs = torch.randn(8, 2, 8, 8)
    quantized = quantize_model(model, inputs)
    quantized.calibrate([inputs])
    path = tmp_path / f"model.{suffix}"
    write_network(quantized.network(), path)
    found = run_model(path, inputs.numpy(), KERNELS[suffix])
    np.testing.assert_allclose(found, torch_logits(quantized, inputs.numpy()), atol=1e-6)
