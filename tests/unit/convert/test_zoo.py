"""A network of each family: both files agree with the fake-quantized model, or the operator is named."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from zoo import FAMILIES, REFUSED

from edgekd.convert.audit import audit_file
from edgekd.convert.inference import run_model
from edgekd.convert.isolated import write_network
from edgekd.convert.parity import compare, torch_logits
from edgekd.errors import BuildError
from edgekd.nn.quantized.model import quantize_model

# The quick ones between them hold every operator; hard-swish's gate is made of theirs.
SLOW = {
    *("ours: inverted residual", "ours: ds-cnn signal", "ResNet", "ResNet, pooled stem", "ResNeXt", "GRU"),
    *("MobileNetV1", "MobileNetV2", "MobileNetV3", "EfficientNet-Lite"),
    *("SE with linear layers", "ShuffleNetV1", "DenseNet", "U-Net"),
}


def cases(names):
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


def executed_operators(path):
    """What onnxruntime makes of a file: with one quantize and one dequantize node, all between is integers."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_name("optimized.onnx"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.mark.parametrize("name", cases(FAMILIES))
def test_family_converts_to_both_formats(name, tmp_path):
    torch.manual_seed(0)
    factory, shape = FAMILIES[name]
    model, inputs = factory().train(), torch.randn(48, *shape)
    with torch.no_grad():
        for _ in range(3):
            model(inputs)
    model.eval()
    quantized = quantize_model(model, inputs)
    quantized.calibrate([inputs])
    quantized.eval()
    network = quantized.network()
    expected = torch_logits(quantized, inputs.numpy())
    images = inputs.numpy() if len(shape) == 3 else inputs.unsqueeze(2).numpy()
    found = {}
    for file_format, kernels in (("tflite", "deployed"), ("onnx", "exact")):
        path = tmp_path / f"model.{file_format}"
        write_network(network, path)
        found[file_format] = run_model(path, images, kernels)
        audit = audit_file(path, "wi8_ai8")
        assert audit.honest and not audit.findings, audit.findings
        pair = compare(f"torch-{file_format}", expected, found[file_format], network.output_scale())
        assert pair.max_abs_lsb <= 3 and pair.mean_abs_lsb < 0.25
        if file_format == "onnx":
            executed = executed_operators(path)
            assert executed["QuantizeLinear"] == executed["DequantizeLinear"] == 1, executed
        write_network(quantize_model(model, inputs, "fp32").network(), path)
        with torch.no_grad():
            np.testing.assert_allclose(run_model(path, images[:8]), model(inputs[:8]).numpy(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", cases(REFUSED))
def test_family_that_has_no_int8_form_is_refused_by_name(name):
    factory, shape, message = REFUSED[name]
    with pytest.raises(BuildError, match=message):
        quantize_model(factory(), torch.zeros(1, *shape))
