"""What a runtime does not accelerate is named, as the runtime itself says; what it takes whole is left in peace."""

import onnx
import pytest
from tflite_surgery import Surgery

from edgekd.convert.acceleration import acceleration
from edgekd.convert.model_file import read_graph
from edgekd.convert.random_student import write_random_student
from edgekd.core.spaces import space_named
from edgekd.nn.students import Student, example_input

CHOICES = {"resolution": 28, "stem_stride": 2, "kernel": 3, "width": 8, "depth": 2, "expansion": 3}


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    architecture = space_named("inverted-residual").architecture(CHOICES, (1, 28, 28), 10)
    folder = tmp_path_factory.mktemp("schemes")

    def written(scheme, file_format):
        path = folder / f"{scheme}.{file_format}"
        write_random_student(Student(architecture).eval(), example_input(architecture), path, scheme)
        return path

    return written


def slow(path, runtime):
    found = acceleration(read_graph(path), path, runtime)
    assert all(finding.severity == "warning" for finding in found.findings)
    return found, [(finding.node, finding.problem) for finding in found.findings]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file_format", "runtime"), [("tflite", "tflite"), ("onnx", "onnxruntime")], ids=["XNNPACK", "onnxruntime"]
)
def test_our_int8_files_are_accelerated_whole(converted, file_format, runtime):
    found, problems = slow(converted.paths[file_format, "wi8_ai8"], runtime)
    assert problems == []
    assert found.basis == "asked" and found.version and found.operators > 5


def test_xnnpack_takes_no_int16_activations(write):
    path = write("wi8_ai16", "tflite")
    found, problems = slow(path, "tflite")
    assert len(problems) == found.operators == len(read_graph(path).nodes)
    assert all("no int16 activations" in problem for _, problem in problems)


def test_xnnpack_leaves_depthwise_layers_of_dynamic_range_files(write):
    path = write("wi8", "tflite")
    depthwise = [node.name for node in read_graph(path).nodes if node.op == "DEPTHWISE_CONV_2D"]
    _, problems = slow(path, "tflite")
    assert [node for node, _ in problems] == depthwise


def test_onnxruntime_does_not_fuse_int16(write):
    path = write("wi8_ai16", "onnx")
    _, problems = slow(path, "onnxruntime")
    expected = {node.name for node in read_graph(path).nodes if node.op in ("Conv", "Add", "GlobalAveragePool", "Gemm")}
    assert {node for node, _ in problems} == expected
    assert all("int16" in problem for _, problem in problems)


def test_onnxruntime_names_the_one_group_that_it_does_not_fuse(images, tmp_path):
    model = onnx.load(images.paths["onnx", "wi8_ai8"])
    node = next(node for node in model.graph.node if node.op_type == "Add")
    node.op_type = "Pow"
    onnx.save(model, tmp_path / "model.onnx")
    _, problems = slow(tmp_path / "model.onnx", "onnxruntime")
    assert problems == [
        (
            node.name,
            "Pow is computed in float32: onnxruntime does not fuse it with the (de)quantize nodes of uint8 around it",
        )
    ]


def test_onnxruntime_casts_float16_on_a_cpu(write):
    _, problems = slow(write("fp16", "onnx"), "onnxruntime")
    assert problems and all("between casts" in problem for _, problem in problems)


def test_tensorrt_takes_the_scheme_that_is_made_for_it(write):
    found, problems = slow(write("wi8_ai8_symmetric", "onnx"), "tensorrt")
    assert problems == []
    assert found.basis == "rules" and found.version is None


def test_tensorrt_refuses_zero_points_unsigned_values_and_integer_biases(images):
    path = images.paths["onnx", "wi8_ai8"]
    _, problems = slow(path, "tensorrt")
    graph = read_graph(path)
    biases = [node.name for node in graph.nodes if node.inputs and graph.tensors[node.inputs[0]].dtype == "int32"]
    assert [node for node, problem in problems if "float biases only" in problem] == biases
    quantizing = [node.name for node in graph.nodes if node.op == "QuantizeLinear"]
    unsigned = [node for node, problem in problems if "uint8 values" in problem]
    assert set(quantizing) <= set(unsigned)
    assert any("a zero point other than 0" in problem for _, problem in problems)


def test_tensorrt_wants_one_scale_for_an_activation(write, tmp_path):
    model = onnx.load(write("wi8_ai8_symmetric", "onnx"))
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    for position in (1, 2):
        stored = next(entry for entry in model.graph.initializer if entry.name == node.input[position])
        several = onnx.numpy_helper.to_array(stored).reshape(-1).repeat(2)
        model.graph.initializer.append(onnx.numpy_helper.from_array(several, f"several_{position}"))
        node.input[position] = f"several_{position}"
    onnx.save(model, tmp_path / "model.onnx")
    _, problems = slow(tmp_path / "model.onnx", "tensorrt")
    assert (node.name, "several scales on an activation: TensorRT takes int8 around 0 with one scale") in problems


def test_tensorrt_has_no_fused_operators_of_onnxruntime(images, tmp_path):
    model = onnx.load(images.paths["onnx", "fp32"])
    node = model.graph.node[0]
    node.op_type, node.domain = "FusedConv", "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, tmp_path / "model.onnx")
    _, problems = slow(tmp_path / "model.onnx", "tensorrt")
    assert [name for name, problem in problems if "TensorRT has no com.microsoft.FusedConv" in problem] == [node.name]


def test_a_file_that_the_runtime_refuses_is_said_to_be_refused(images, tmp_path):
    surgery = Surgery(images.paths["tflite", "wi8_ai8"])
    surgery.operators("ADD")[0].inputs = surgery.operators("ADD")[0].inputs[:1]
    path = surgery.save(tmp_path / "model.tflite")
    _, problems = slow(path, "tflite")
    assert [node for node, _ in problems] == ["file"]
    assert "tflite does not load it" in problems[0][1]
