"""Layers kept in float between int8 ones: files, honesty under either name, agreement of all forms."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edgekd.convert.audit import audit_file
from edgekd.convert.inference import run_model
from edgekd.convert.isolated import write_network
from edgekd.convert.parity import compare, measure_parity, torch_logits
from edgekd.errors import BuildError
from edgekd.nn.quantized.model import quantize_model


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU6())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

    def forward(self, inputs):
        first = self.stem(inputs)
        return self.head(first + self.body(first))


@pytest.fixture(scope="module")
def inputs():
    return torch.randn(64, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def calibrated(inputs):
    torch.manual_seed(0)
    model = quantize_model(Net().eval(), inputs)
    model.calibrate([inputs])
    return model.eval()


CASES = {
    "depthwise alone": ["001_conv"],
    "first layer": ["000_conv"],
    "an island of two": ["001_conv", "002_conv"],
    "branch and sum": ["002_conv", "003_add"],
    "last layer": ["005_linear"],
    "all but the stem": ["001_conv", "002_conv", "003_add", "004_global_average_pool", "005_linear"],
}


@pytest.mark.parametrize("float_io", [False, True])
@pytest.mark.parametrize("steps", CASES.values(), ids=CASES)
def test_all_forms_agree_and_the_audit_knows_the_name(inputs, tmp_path, steps, float_io):
    model = calibrated(inputs)
    model.keep_float(steps)
    if float_io:
        model.use_float_io()
    network = model.network()
    assert model.scheme == network.scheme == "wi8_ai8_mixed"
    assert [name.split(":")[0] for name in network.kept_in_float] == steps
    tflite, onnx_file = tmp_path / "m.tflite", tmp_path / "m.onnx"
    for path in (tflite, onnx_file):
        write_network(network, path)
        audit = audit_file(path, "wi8_ai8_mixed")
        assert audit.honest and not audit.findings, audit.findings
        lies = audit_file(path, "wi8_ai8")
        assert not lies.honest and any("float" in finding.problem for finding in lies.findings)
    for rung in measure_parity(model, tflite, onnx_file, inputs.numpy()):
        assert rung.top1_agreement >= 0.98 and rung.max_abs_lsb <= 1 and rung.identical_logits >= 0.95, rung


def test_onnxruntime_does_not_quantize_what_is_kept_in_float(inputs, tmp_path):
    model = calibrated(inputs)
    model.keep_float(["001_conv", "005_linear"])
    path = tmp_path / "m.onnx"
    write_network(model.network(), path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    executed = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert executed.count("QLinearConv") == 2 and "QGemm" not in executed, executed


def test_layers_in_float_bring_the_outputs_closer(inputs):
    model = calibrated(inputs)
    with model.unrounded(), torch.no_grad():
        exact = model(inputs)
    with torch.no_grad():
        before = (model(inputs) - exact).abs().mean()
        model.keep_float([step.key for step in model.steps])
        after = (model(inputs) - exact).abs().mean()
    assert after < before


def test_a_float_layer_that_the_metadata_hides_is_found(inputs, tmp_path):
    model = calibrated(inputs)
    model.keep_float(["001_conv", "005_linear"])
    path = tmp_path / "m.onnx"
    write_network(model.network(), path)
    stored = onnx.load(path)
    stored.metadata_props[0].value = stored.metadata_props[0].value.replace("005_linear", "004_linear")
    onnx.save(stored, path)
    findings = audit_file(path, "wi8_ai8_mixed").findings
    assert [finding.node for finding in findings] == ["005_linear/negative", "005_linear/gemm"]


def test_an_int8_file_is_not_mixed(inputs, tmp_path):
    path = tmp_path / "m.tflite"
    write_network(calibrated(inputs).network(), path)
    assert not audit_file(path, "wi8_ai8_mixed").honest


def test_only_int8_mixes(inputs):
    model = quantize_model(Net().eval(), inputs, "wi8_ai16")
    with pytest.raises(BuildError, match="only wi8_ai8"):
        model.keep_float(["001_conv"])


@pytest.mark.parametrize("scheme", ["wi8_ai8", "wi8_ai16"])
def test_float_input_and_output_change_no_value(inputs, tmp_path, scheme):
    torch.manual_seed(0)
    model = quantize_model(Net().eval(), inputs, scheme)
    model.calibrate([inputs])
    model.eval()
    before, path = torch_logits(model, inputs.numpy()), tmp_path / "m.tflite"
    model.use_float_io()
    network = model.network()
    np.testing.assert_array_equal(torch_logits(model, inputs.numpy()), before)
    write_network(network, path)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    ends = (*interpreter.get_input_details(), *interpreter.get_output_details())
    assert [end["dtype"] for end in ends] == [np.float32, np.float32]
    assert compare("io", before, run_model(path, inputs.numpy()), network.output_scale()).max_abs_lsb <= (
        1 if scheme == "wi8_ai8" else 4
    )
    audit = audit_file(path, scheme)
    assert audit.honest and not audit.findings


def test_float_schemes_have_float_ends_anyway(inputs):
    with pytest.raises(BuildError, match="anyway"):
        quantize_model(Net().eval(), inputs, "fp16").use_float_io()


def test_training_goes_on_with_layers_in_float(inputs):
    model = calibrated(inputs)
    model.keep_float(["001_conv"])
    model.train()
    model(inputs).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
