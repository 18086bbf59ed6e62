import hashlib
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from edgekd.convert.divergence import first_divergent_layer, layer_differences
from edgekd.convert.inference import run_model
from edgekd.convert.model_file import read_graph
from edgekd.convert.onnx_writer import onnx_bytes
from edgekd.convert.operators import operators_of
from edgekd.convert.parity import LADDER, check_parity, compare, measure_parity
from edgekd.convert.students import convert_student
from edgekd.convert.tflite_writer import tflite_bytes
from edgekd.core.architecture import operator_list
from edgekd.errors import BuildError
from edgekd.nn.quantized.model import quantize_model


def test_artifacts_describe_their_files(converted):
    for key, entry in converted.artifacts.items():
        content = converted.paths[key].read_bytes()
        assert entry.sha256 == hashlib.sha256(content).hexdigest()
        assert entry.size_bytes == len(content)
        assert entry.parent == "a" * 64
        assert entry.audit.honest and entry.audit.found_scheme == key[1] and not entry.audit.findings
        assert entry.audit.parameters == operator_list(converted.architecture).parameters


def test_nothing_else_is_left_in_the_directory(converted):
    assert {path.name for path in converted.directory.iterdir()} == {path.name for path in converted.paths.values()}


def test_gated_pairs_agree(converted):
    pairs = check_parity(
        converted.quantized,
        converted.paths["tflite", "wi8_ai8"],
        converted.paths["onnx", "wi8_ai8"],
        converted.inputs.numpy(),
        pytest.fail,
    )
    by_name = {pair.pair: pair for pair in pairs}
    assert set(by_name) == {"torch-onnx", "torch-tflite", "onnx-tflite", "onnx-tflite reference"}
    assert by_name["onnx-tflite"].identical_logits >= 0.99 and by_name["onnx-tflite"].max_abs_lsb <= 2
    assert by_name["torch-tflite"].top1_agreement >= 0.995 and by_name["torch-tflite"].identical_logits >= 0.90


def test_parity_below_its_bound_fails_the_build(images):
    other = quantize_model(images.student, images.inputs)
    other.calibrate([images.inputs[:64] * 0.05])
    with pytest.raises(BuildError, match=r"torch-onnx agree on .* They part at"):
        check_parity(
            other,
            images.paths["tflite", "wi8_ai8"],
            images.paths["onnx", "wi8_ai8"],
            images.inputs[:200].numpy(),
            pytest.fail,
        )


def test_every_rung_of_the_ladder_is_reported(signals):
    rungs = measure_parity(
        signals.quantized,
        signals.paths["tflite", "wi8_ai8"],
        signals.paths["onnx", "wi8_ai8"],
        signals.inputs[:200].numpy(),
        LADDER,
        signals.student,
    )
    assert [rung.pair for rung in rungs] == [
        "float-torch",
        "torch-onnx",
        "onnx-onnx deployed",
        "onnx-tflite reference",
        "tflite reference-tflite",
        "onnx-tflite",
    ]
    assert rungs[-1].identical_logits >= rungs[3].identical_logits


def test_the_layer_where_two_forms_part_is_found(signals):
    other = quantize_model(signals.student, signals.inputs)
    other.load_state_dict(signals.quantized.state_dict())
    other.eval()
    target = "003_conv"
    with torch.no_grad():
        found = list(layer_differences(other, signals.inputs[:16].numpy(), "torch", "tflite"))
        assert first_divergent_layer(iter(found)) is None
        other.layers[target].register_forward_hook(lambda module, inputs, outputs: outputs * 1.5)
        part = first_divergent_layer(layer_differences(other, signals.inputs[:16].numpy(), "torch", "tflite"))
    assert part is not None and part.layer.startswith(target)
    assert "range" in part.describe() and "identical" in part.describe()


def test_float_files_compute_what_the_float_student_does(converted):
    with torch.no_grad():
        expected = converted.student(converted.inputs[:50]).numpy()
    for file_format in ("tflite", "onnx"):
        found = run_model(converted.paths[file_format, "fp32"], converted.inputs[:50].numpy())
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_operator_lists_of_declaration_and_files_agree(converted):
    declared = operator_list(converted.architecture)
    for path in converted.paths.values():
        found = operators_of(read_graph(path))
        assert [operator.kind for operator in found.operators] == [operator.kind for operator in declared.operators]
        assert [operator.macs for operator in found.operators] == [operator.macs for operator in declared.operators]
        assert found.parameters == declared.parameters
        assert found.peak_live_elements() == declared.peak_live_elements()
        assert len(found.inputs) == len(found.outputs) == 1


def test_tflite_int8_is_channels_last_int8_in_and_out(converted):
    interpreter = Interpreter(str(converted.paths["tflite", "wi8_ai8"]))
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    channels, height, width = converted.architecture.input_shape
    assert (source["name"], source["dtype"], list(source["shape"])) == ("input", np.int8, [1, height, width, channels])
    assert (result["name"], result["dtype"]) == ("logits", np.int8)
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["input"], "outputs": ["logits"]}}


def test_onnxruntime_fuses_the_int8_file_whole(converted, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(converted.paths["onnx", "wi8_ai8"]), options, providers=["CPUExecutionProvider"]
    )
    assert [value.name for value in (*session.get_inputs(), *session.get_outputs())] == ["input", "logits"]
    executed = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    integer = {"QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm", "Flatten", "Transpose"}
    assert set(executed) <= integer | {"QuantizeLinear", "DequantizeLinear"}
    assert executed.count("QuantizeLinear") == executed.count("DequantizeLinear") == 1


def test_files_say_what_they_are(converted):
    for (_, scheme), path in converted.paths.items():
        assert json.loads(read_graph(path).metadata["edgekd"])["scheme"] == scheme


def test_writing_is_deterministic(signals):
    assert tflite_bytes(signals.network) == tflite_bytes(signals.network)
    assert tflite_bytes(signals.network) == signals.paths["tflite", "wi8_ai8"].read_bytes()
    assert onnx_bytes(signals.network) == signals.paths["onnx", "wi8_ai8"].read_bytes()


def test_int8_buffers_are_aligned(images):
    content = images.paths["tflite", "wi8_ai8"].read_bytes()
    for layer in images.network.layers:
        if layer.bias is not None and layer.bias.nbytes >= 32:
            assert content.index(layer.bias.tobytes()) % 16 == 0


def test_a_scheme_without_a_model_is_refused(signals, tmp_path):
    with pytest.raises(BuildError, match="no model of scheme wi8_ai16"):
        convert_student(
            signals.student, signals.quantized, signals.inputs[:1], tmp_path, {("tflite", "wi8_ai16"): "student.tflite"}
        )


def test_comparison_counts_steps():
    first = np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)
    second = np.array([[0.0, 1.0], [0.5, 1.0]], np.float32)
    pair = compare("a-b", first, second, 0.5)
    assert (pair.top1_agreement, pair.max_abs_lsb, pair.mean_abs_lsb, pair.identical_logits) == (0.5, 3, 1.25, 0.5)
