"""Each way in which an .onnx can be other than its name says is found, at its node; honest files pass."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime import quantization

from edgekd.convert.audit import audit_file
from edgekd.convert.model_file import read_graph
from edgekd.convert.operators import operators_of


@pytest.fixture
def honest(images):
    return onnx.load(images.paths["onnx", "wi8_ai8"])


@pytest.fixture
def floating(images):
    return onnx.load(images.paths["onnx", "fp32"])


def save(model, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


def problems(model, tmp_path, scheme="wi8_ai8"):
    audit = audit_file(save(model, tmp_path), scheme)
    assert not audit.honest
    return [(finding.node, finding.problem) for finding in audit.findings]


def named(found, text):
    matching = [node for node, problem in found if text in problem]
    assert matching, found
    return matching


def nodes(model, kind):
    return [node for node in model.graph.node if node.op_type == kind]


def initializer(model, name):
    return next(entry for entry in model.graph.initializer if entry.name == name)


def producer(model, name):
    return next(node for node in model.graph.node if name in node.output)


def replace_constant(model, name, data):
    model.graph.initializer.remove(initializer(model, name))
    model.graph.initializer.append(numpy_helper.from_array(data, name))


def insert(model, after, *added):
    position = list(model.graph.node).index(after) + 1
    for offset, node in enumerate(added):
        model.graph.node.insert(position + offset, node)


def test_a_whole_float_file_renamed(floating, tmp_path):
    assert audit_file(save(floating, tmp_path), "wi8_ai8").found_scheme == "fp32"
    assert named(problems(floating, tmp_path), "Conv computes in float32")


def test_quantize_pairs_around_operators_without_an_integer_kernel(honest, tmp_path):
    node = nodes(honest, "Add")[0]
    node.op_type = "Pow"
    assert named(problems(honest, tmp_path), "Pow computes in float32: a float island") == [node.name]


def test_one_float_island(honest, tmp_path):
    node = nodes(honest, "Add")[0]
    for position, name in enumerate(list(node.input)):
        dequantize = producer(honest, name)
        quantize = producer(honest, dequantize.input[0])
        node.input[position] = quantize.input[0]
    found = problems(honest, tmp_path)
    assert node.name in named(found, "a float island")


def test_int8_weights_with_float_activations(images, floating, tmp_path):
    for node in nodes(floating, "Conv"):
        data = numpy_helper.to_array(initializer(floating, node.input[1]))
        name = node.input[1]
        replace_constant(floating, name, np.clip(data * 100, -127, 127).astype(np.int8))
        scale, zero = f"{name}_scale", f"{name}_zero"
        floating.graph.initializer.append(numpy_helper.from_array(np.array(0.01, np.float32), scale))
        floating.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), zero))
        node.input[1] = f"{name}_float"
        floating.graph.node.insert(0, helper.make_node("DequantizeLinear", [name, scale, zero], [node.input[1]]))
    found = problems(floating, tmp_path)
    assert len(named(found, "dequantizes its weights while running")) == len(nodes(floating, "Conv"))


def test_dynamic_range_called_static(images, tmp_path):
    path = tmp_path / "dynamic.onnx"
    quantization.quantize_dynamic(str(images.paths["onnx", "fp32"]), str(path))
    audit = audit_file(path, "wi8_ai8")
    assert not audit.honest
    assert any("quantizes its activations while running" in finding.problem for finding in audit.findings)


def test_duplicated_weights(honest, tmp_path):
    largest = max(honest.graph.initializer, key=lambda entry: len(entry.raw_data))
    honest.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(largest), "again"))
    assert named(problems(honest, tmp_path), "holds the same") == ["again"]


def test_one_scale_where_one_per_channel_is_claimed(honest, tmp_path):
    node = nodes(honest, "Conv")[1]
    dequantize = producer(honest, node.input[1])
    replace_constant(honest, dequantize.input[1], np.array(0.01, np.float32))
    replace_constant(honest, dequantize.input[2], np.array(0, np.int8))
    assert named(problems(honest, tmp_path), "one weight scale for") == [node.name]


def test_int16_activations_called_int8(honest, tmp_path):
    honest.opset_import[0].version, honest.ir_version = 21, 10
    for entry in list(honest.graph.initializer):
        if entry.data_type == onnx.TensorProto.UINT8:
            replace_constant(honest, entry.name, numpy_helper.to_array(entry).astype(np.uint16))
    assert named(problems(honest, tmp_path), "has int16 activations")


def test_a_stray_transpose_pair(honest, tmp_path):
    node = nodes(honest, "Conv")[1]
    target = node.output[0]
    node.output[0] = "raw"
    there = helper.make_node("Transpose", ["raw"], ["moved"], name="there", perm=[0, 2, 3, 1])
    back = helper.make_node("Transpose", ["moved"], [target], name="back", perm=[0, 3, 1, 2])
    insert(honest, node, there, back)
    assert named(problems(honest, tmp_path), "a stray pair") == ["there"]


def test_an_unfused_activation(honest, tmp_path):
    node = nodes(honest, "Conv")[0]
    readers = [entry for entry in honest.graph.node if node.output[0] in entry.input]
    quantize = readers[0]
    dequantize = next(entry for entry in honest.graph.node if quantize.output[0] in entry.input)
    target = dequantize.output[0]
    dequantize.output[0] = "raw"
    scale, zero = quantize.input[1:3]
    insert(
        honest,
        dequantize,
        helper.make_node("Relu", ["raw"], ["clipped"], name="relu"),
        helper.make_node("QuantizeLinear", ["clipped", scale, zero], ["clipped_q"]),
        helper.make_node("DequantizeLinear", ["clipped_q", scale, zero], [target]),
    )
    assert named(problems(honest, tmp_path), "is not fused into") == ["relu"]


def test_a_bias_left_in_float(honest, tmp_path):
    node = nodes(honest, "Conv")[1]
    bias = np.zeros(
        numpy_helper.to_array(initializer(honest, producer(honest, node.input[2]).input[0])).shape, np.float32
    )
    honest.graph.initializer.append(numpy_helper.from_array(bias + 0.5, "float_bias"))
    node.input[2] = "float_bias"
    assert named(problems(honest, tmp_path), "the bias is left in float32") == [node.name]


def test_float_weights(honest, tmp_path):
    node = nodes(honest, "Conv")[1]
    stored = numpy_helper.to_array(initializer(honest, producer(honest, node.input[1]).input[0]))
    honest.graph.initializer.append(numpy_helper.from_array(stored.astype(np.float32) * 0.01, "float_weight"))
    node.input[1] = "float_weight"
    assert named(problems(honest, tmp_path), "weights are stored in float32") == [node.name]


def test_metadata_of_another_scheme(honest, tmp_path):
    helper.set_model_props(honest, {"edgekd": '{"scheme": "fp16"}'})
    assert named(problems(honest, tmp_path), "metadata says fp16") == ["metadata"]


def test_a_hash_that_does_not_match(images):
    path, entry = images.paths["onnx", "wi8_ai8"], images.artifacts["onnx", "wi8_ai8"]
    assert audit_file(path, "wi8_ai8", sha256=entry.sha256).honest
    audit = audit_file(path, "wi8_ai8", sha256="0" * 64)
    assert not audit.honest and audit.findings[0].node == "file"


def test_float_weights_left_beside_the_integers(images, honest, tmp_path):
    original = max(onnx.load(images.paths["onnx", "fp32"]).graph.initializer, key=lambda entry: len(entry.raw_data))
    original.name = "left_over"
    honest.graph.initializer.append(original)
    assert named(problems(honest, tmp_path), "that no operator reads") == ["left_over"]


def test_a_float_file_is_honest_as_float(converted):
    audit = audit_file(converted.paths["onnx", "fp32"], "fp32")
    assert audit.honest and not audit.findings


class _Inputs(quantization.CalibrationDataReader):
    def __init__(self, inputs):
        self._batches = iter([{"input": inputs[index : index + 1]} for index in range(8)])

    def get_next(self):
        return next(self._batches, None)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", [quantization.QuantType.QInt8, quantization.QuantType.QUInt8])
@pytest.mark.parametrize("layout", [quantization.QuantFormat.QDQ, quantization.QuantFormat.QOperator])
def test_onnxruntimes_static_files_are_honest(converted, tmp_path, per_channel, activations, layout):
    source = onnx.load(converted.paths["onnx", "fp32"])
    del source.metadata_props[:]
    onnx.save(source, tmp_path / "float.onnx")
    path = tmp_path / "static.onnx"
    quantization.quantize_static(
        str(tmp_path / "float.onnx"),
        str(path),
        _Inputs(converted.inputs.numpy()),
        quant_format=layout,
        per_channel=per_channel,
        activation_type=activations,
        weight_type=quantization.QuantType.QInt8,
    )
    audit = audit_file(path, "wi8_ai8")
    assert audit.honest, audit.findings
    assert not audit.findings and audit.found_scheme == "wi8_ai8"
    expected = operators_of(read_graph(converted.paths["onnx", "wi8_ai8"]))
    assert operators_of(read_graph(path)).macs == expected.macs


@pytest.mark.parametrize("weights", [quantization.QuantType.QInt8, quantization.QuantType.QUInt8])
def test_onnxruntimes_dynamic_files_are_honest_as_what_they_are(converted, tmp_path, weights):
    source = onnx.load(converted.paths["onnx", "fp32"])
    del source.metadata_props[:]
    onnx.save(source, tmp_path / "float.onnx")
    quantization.quantize_dynamic(str(tmp_path / "float.onnx"), str(tmp_path / "dynamic.onnx"), weight_type=weights)
    audit = audit_file(tmp_path / "dynamic.onnx", "wi8")
    assert audit.honest and not audit.findings and audit.found_scheme == "wi8"
