"""Each way in which a .tflite can be other than its name says is found, at its node; honest files pass."""

import shutil

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tflite_surgery import Surgery

from edgekd.convert.audit import audit_file, require_honest
from edgekd.errors import BuildError

FLOAT32 = schema.TensorType.FLOAT32


@pytest.fixture
def honest(images):
    return Surgery(images.paths["tflite", "wi8_ai8"])


@pytest.fixture
def floating(images):
    return Surgery(images.paths["tflite", "fp32"])


def problems(surgery, tmp_path, scheme="wi8_ai8", **options):
    audit = audit_file(surgery.save(tmp_path / "model.tflite"), scheme, **options)
    assert not audit.honest
    return [(finding.node, finding.problem) for finding in audit.findings]


def named(found, text):
    matching = [node for node, problem in found if text in problem]
    assert matching, found
    return matching


def test_repacking_an_honest_file_changes_nothing(honest, tmp_path):
    audit = audit_file(honest.save(tmp_path / "model.tflite"), "wi8_ai8")
    assert audit.honest and not audit.findings and audit.found_scheme == "wi8_ai8"


def test_a_whole_float_file_renamed(images, tmp_path):
    path = tmp_path / "int8.tflite"
    shutil.copy(images.paths["tflite", "fp32"], path)
    audit = audit_file(path, "wi8_ai8")
    assert not audit.honest and audit.found_scheme == "fp32"
    with pytest.raises(BuildError, match=r"is not wi8_ai8, it is fp32: .*000_conv: CONV_2D computes in float32"):
        require_honest(path, "wi8_ai8")


def test_quantize_pairs_around_float_operators(floating, tmp_path):
    for operator in list(floating.operators("CONV_2D")):
        floating.pair_behind(
            operator, "QUANTIZE", "DEQUANTIZE", type=schema.TensorType.INT8, quantization=floating.grid()
        )
    found = problems(floating, tmp_path)
    assert len(named(found, "inside the graph, around operators in float")) >= 10
    assert named(found, "a float island")


def test_one_float_island(honest, tmp_path):
    island = honest.operators("ADD")[0]
    position = honest.graph.operators.index(island)
    target = island.outputs[0]
    floats = [honest.add_tensor(index, type=FLOAT32, quantization=None) for index in (*island.inputs, target)]
    for source, value in zip(island.inputs, floats, strict=False):
        honest.add_operator(position, "DEQUANTIZE", [source], [value])
    honest.add_operator(position + 3, "QUANTIZE", [floats[-1]], [target])
    island.inputs, island.outputs = floats[:-1], floats[-1:]
    found = problems(honest, tmp_path)
    assert named(found, "ADD computes in float32: a float island") == [honest.tensor(floats[-1]).name]
    assert len(found) == 4


def test_int8_weights_dequantized_while_running(images, floating, tmp_path):
    for operator in floating.operators("CONV_2D"):
        weight = operator.inputs[1]
        stored = floating.add_tensor(weight, quantization=floating.grid(0.01))
        floating.set_data(
            stored, np.clip(floating.data(weight) * 100, -127, 127).astype(np.int8), schema.TensorType.INT8
        )
        floating.tensor(weight).buffer = 0
        floating.add_operator(0, "DEQUANTIZE", [stored], [weight])
    found = problems(floating, tmp_path)
    assert named(found, "dequantizes its weights while running")


def test_dynamic_range_called_static(floating, tmp_path):
    for kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        for operator in floating.operators(kind):
            weight = operator.inputs[1]
            steps = np.clip(floating.data(weight) * 100, -127, 127).astype(np.int8)
            floating.set_data(weight, steps, schema.TensorType.INT8)
            floating.tensor(weight).quantization = floating.grid(0.01)
    path = floating.save(tmp_path / "model.tflite")
    assert audit_file(path, "wi8_ai8").found_scheme == "wi8"
    assert named(problems(floating, tmp_path), "quantizes its activations while running")


def test_duplicated_weights(honest, tmp_path):
    operator = max(honest.operators("CONV_2D"), key=lambda entry: honest.data(entry.inputs[1]).size)
    copied = honest.add_tensor(operator.inputs[1])
    honest.set_data(copied, honest.data(operator.inputs[1]), schema.TensorType.INT8)
    assert named(problems(honest, tmp_path), "holds the same") == [honest.tensor(copied).name]


def test_one_scale_where_one_per_channel_is_claimed(honest, tmp_path):
    weight = honest.tensor(honest.operators("CONV_2D")[1].inputs[1])
    weight.quantization = honest.grid(0.01)
    assert named(problems(honest, tmp_path), "one weight scale for 24 channels")


def test_int16_activations_called_int8(honest, tmp_path):
    constants = {
        index
        for index, tensor in enumerate(honest.graph.tensors)
        if honest.model.buffers[tensor.buffer].data is not None
    }
    for index, tensor in enumerate(honest.graph.tensors):
        if index not in constants:
            tensor.type = schema.TensorType.INT16
    found = problems(honest, tmp_path)
    assert named(found, "has int16 activations")
    assert audit_file(tmp_path / "model.tflite", "wi8_ai16").found_scheme == "wi8_ai16"


def test_a_stray_transpose_pair(honest, tmp_path):
    honest.add_transposes()
    assert named(problems(honest, tmp_path), "a stray pair")


def test_an_unfused_activation(honest, tmp_path):
    operator = honest.operators("CONV_2D")[1]
    target = operator.outputs[0]
    raw = honest.add_tensor(target)
    operator.outputs, operator.builtinOptions.fusedActivationFunction = [raw], 0
    honest.add_operator(honest.graph.operators.index(operator) + 1, "RELU6", [raw], [target])
    assert named(problems(honest, tmp_path), "RELU6 is not fused")


def test_a_bias_left_in_float(honest, tmp_path):
    bias = honest.operators("CONV_2D")[1].inputs[2]
    honest.set_data(bias, honest.data(bias).astype(np.float32), FLOAT32)
    assert named(problems(honest, tmp_path), "the bias is left in float32")


def test_float_weights(honest, tmp_path):
    weight = honest.operators("FULLY_CONNECTED")[0].inputs[1]
    honest.set_data(weight, honest.data(weight).astype(np.float32), FLOAT32)
    assert named(problems(honest, tmp_path), "weights are stored in float32")


def test_float_weights_left_beside_the_integers(images, honest, tmp_path):
    source = Surgery(images.paths["tflite", "fp32"])
    weight = max((source.data(operator.inputs[1]) for operator in source.operators("CONV_2D")), key=np.size)
    left = honest.add_tensor(0, shape=list(weight.shape), quantization=None)
    honest.set_data(left, weight, FLOAT32)
    assert named(problems(honest, tmp_path), "that no operator reads") == [honest.tensor(left).name]


def test_metadata_of_another_scheme(images, tmp_path):
    audit = audit_file(images.paths["tflite", "wi8_ai8"], "fp32")
    assert not audit.honest
    assert any("metadata says wi8_ai8" in finding.problem for finding in audit.findings)


def test_a_hash_that_does_not_match(images):
    entry = images.artifacts["tflite", "wi8_ai8"]
    assert audit_file(images.paths["tflite", "wi8_ai8"], "wi8_ai8", sha256=entry.sha256).honest
    audit = audit_file(images.paths["tflite", "wi8_ai8"], "wi8_ai8", sha256="0" * 64)
    assert not audit.honest and audit.findings[0].node == "file"


def test_a_float_file_is_honest_as_float(converted):
    audit = audit_file(converted.paths["tflite", "fp32"], "fp32")
    assert audit.honest and not audit.findings


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("static_wi8_ai8", "wi8_ai8"),
        ("static_wi8_ai16", "wi8_ai16"),
        ("dynamic_wi8_afp32", "wi8"),
        ("weight_only_wi8_afp32", "wi8"),
    ],
)
def test_ai_edge_quantizers_files_are_honest(images, tmp_path, name, scheme):
    tool = pytest.importorskip("ai_edge_quantizer.quantizer")
    recipe = pytest.importorskip("ai_edge_quantizer.recipe")
    source = Surgery(images.paths["tflite", "fp32"])
    source.model.metadata = None
    quantizing = tool.Quantizer(str(source.save(tmp_path / "float.tflite")), getattr(recipe, name)())
    batches = [{"input": images.inputs[index : index + 1].permute(0, 2, 3, 1).numpy()} for index in range(8)]
    found = quantizing.calibrate({"serving_default": batches}) if quantizing.need_calibration else None
    path = tmp_path / "theirs.tflite"
    path.write_bytes(quantizing.quantize(found).quantized_model)
    audit = audit_file(path, scheme)
    assert audit.honest and not audit.findings and audit.found_scheme == scheme
