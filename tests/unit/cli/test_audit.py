import json
import shutil

import pytest
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.core.spaces import SPACES
from edgekd.pipeline.files.audit import scheme_in_name

ARCHITECTURE = SPACES["ds-cnn"].architecture(
    {"window": 96, "stem_stride": 2, "kernel": 5, "width": 16, "depth": 1}, (6, 1, 128), 7
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from edgekd.convert.random_student import write_random_student
    from edgekd.nn.students import Student, example_input

    folder = tmp_path_factory.mktemp("audit")
    for file_format in ("tflite", "onnx"):
        for scheme in ("wi8_ai8", "fp32"):
            student = Student(ARCHITECTURE).eval()
            write_random_student(
                student, example_input(ARCHITECTURE), folder / f"{scheme}_student.{file_format}", scheme
            )
    return folder


def run(*arguments):
    result = CliRunner().invoke(app, ["audit", *map(str, arguments), "--json"])
    return result.exit_code, json.loads(result.stdout) if result.stdout else {}


@pytest.mark.parametrize("file_format", ["tflite", "onnx"])
@pytest.mark.parametrize("scheme", ["wi8_ai8", "fp32"])
def test_an_honest_file_passes_by_its_own_metadata(files, file_format, scheme):
    code, found = run(files / f"{scheme}_student.{file_format}")
    assert code == 0
    assert (found["verdict"], found["scheme"], found["scheme_source"]) == ("honest", scheme, "metadata")
    assert found["findings"] == []
    assert {entry["runtime"] for entry in found["accelerated"]} == (
        {"tflite"} if file_format == "tflite" else {"onnxruntime", "tensorrt"}
    )


@pytest.mark.parametrize("file_format", ["tflite", "onnx"])
def test_a_float_file_called_int8_lies_and_every_node_is_named(files, file_format):
    code, found = run(files / f"fp32_student.{file_format}", "--scheme", "wi8_ai8")
    assert code == 5
    assert (found["verdict"], found["scheme"], found["found_scheme"]) == ("dishonest", "wi8_ai8", "fp32")
    assert any("float32" in finding["problem"] and finding["node"] for finding in found["findings"])


def test_what_the_run_declares_goes_over_the_files_own_word(files, tmp_path):
    path = tmp_path / "student.tflite"
    shutil.copyfile(files / "fp32_student.tflite", path)
    declared = {"path": path.name, "scheme": "wi8_ai8", "sha256": "0" * 64}
    (tmp_path / "report.json").write_text(json.dumps({"artifacts": [declared]}))
    code, found = run(path)
    assert (code, found["scheme_source"]) == (5, "report")
    assert {finding["node"] for finding in found["findings"]} >= {"file", "metadata"}


@pytest.mark.parametrize(
    ("stem", "scheme"),
    [
        ("mobilenet_int8", "wi8_ai8"),
        ("model.wi8-ai16", "wi8_ai16"),
        ("net_wi8_ai8_symmetric", "wi8_ai8_symmetric"),
        ("okay_nabu_int16x8", "wi8_ai16"),
        ("dynamic_range_quant", "wi8"),
        ("student_fp16", "fp16"),
        ("point8", None),
        ("student", None),
    ],
)
def test_names_claim_schemes(stem, scheme):
    assert scheme_in_name(stem) == scheme


@pytest.mark.parametrize("name", ["gone.tflite", "folder.onnx", "notes.txt", "cut.tflite", "cut.onnx"])
def test_what_cannot_be_read_is_no_lie(files, tmp_path, name):
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    for file_format in ("tflite", "onnx"):
        content = (files / f"wi8_ai8_student.{file_format}").read_bytes()
        (tmp_path / f"cut.{file_format}").write_bytes(content[: len(content) // 3])
    result = CliRunner().invoke(app, ["audit", str(tmp_path / name)])
    assert result.exit_code == 3


def test_people_are_told_who_claimed_what(files):
    result = CliRunner().invoke(app, ["audit", str(files / "fp32_student.onnx"), "--scheme", "wi8_ai8"])
    assert "is not wi8_ai8 (as --scheme says)" in result.stdout and "a float island" in result.stdout


def test_what_is_slow_is_no_lie(files):
    result = CliRunner().invoke(app, ["audit", str(files / "wi8_ai8_student.onnx"), "--runtime", "tensorrt"])
    assert result.exit_code == 0
    assert "TensorRT, by its rules" in result.stdout and "float biases only" in result.stdout
    code, found = run(files / "wi8_ai8_student.onnx", "--runtime", "tensorrt")
    assert code == 0 and found["findings"] == []
    (speed,) = found["accelerated"]
    assert {finding["severity"] for finding in speed["findings"]} == {"warning"}


def test_no_runtime_is_asked_where_none_is_wanted(files):
    assert run(files / "wi8_ai8_student.onnx", "--runtime", "none")[1]["accelerated"] == []


def test_a_runtime_of_another_format_is_refused(files):
    result = CliRunner().invoke(app, ["audit", str(files / "wi8_ai8_student.tflite"), "--runtime", "tensorrt"])
    assert result.exit_code == 3 and "ask for tflite" in result.stderr


@pytest.mark.parametrize("file_format", ["tflite", "onnx"])
@pytest.mark.parametrize(
    ("scheme", "stem", "named"),
    [
        ("fp32", "net_int8", "wi8_ai8"),
        ("fp32", "net_wi8_ai8", "wi8_ai8"),
        ("wi8_ai8", "net_wi8_ai16", "wi8_ai16"),
        ("wi8_ai8", "net_fp16", "fp16"),
        ("wi8_ai8", "net_float32", "fp32"),
    ],
)
def test_a_name_that_contradicts_the_metadata_lies(files, tmp_path, file_format, scheme, stem, named):
    path = tmp_path / f"{stem}.{file_format}"
    shutil.copyfile(files / f"{scheme}_student.{file_format}", path)
    code, found = run(path, "--runtime", "none")
    assert (code, found["scheme"], found["scheme_source"]) == (5, named, "name")
    assert any(f"own metadata says {scheme}, not {named}" in finding["problem"] for finding in found["findings"])
    result = CliRunner().invoke(app, ["audit", str(path), "--runtime", "none"])
    assert f"is not {named} (as its name says)" in result.stdout


@pytest.mark.parametrize(
    ("scheme", "stem"),
    [
        ("wi8_ai8", "net_int8"),
        ("wi8_ai8", "student"),
        ("wi8_ai8", "better-than-fp32-now-int8"),
        ("fp32", "before_quant"),
        ("fp32", "half_width"),
    ],
)
def test_names_that_may_mean_something_else_contradict_nothing(files, tmp_path, scheme, stem):
    path = tmp_path / f"{stem}.onnx"
    shutil.copyfile(files / f"{scheme}_student.onnx", path)
    code, found = run(path, "--runtime", "none")
    assert (code, found["scheme"], found["scheme_source"]) == (0, scheme, "metadata")


def test_a_file_beside_quantizes_report_is_the_declared_one(files, tmp_path):
    path = tmp_path / "model_wi8_ai8.onnx"
    shutil.copyfile(files / "wi8_ai8_student.onnx", path)
    declared = {"path": path.name, "scheme": "wi8_ai8", "sha256": "0" * 64}
    (tmp_path / "quantize.json").write_text(json.dumps({"artifacts": [declared]}))
    code, found = run(path, "--runtime", "none")
    assert (code, found["scheme_source"]) == (5, "report")
    (finding,) = found["findings"]
    assert finding["node"] == "file" and finding["problem"].startswith("not the declared file: its sha256 is ")


def test_metadata_that_contradicts_a_true_name_lies(files, tmp_path):
    import onnx

    model = onnx.load(files / "fp32_student.onnx")
    (entry,) = [entry for entry in model.metadata_props if entry.key == "edgekd"]
    entry.value = json.dumps({"scheme": "wi8_ai8"})
    onnx.save(model, tmp_path / "net_fp32.onnx")
    code, found = run(tmp_path / "net_fp32.onnx", "--runtime", "none")
    assert (code, found["scheme"], found["scheme_source"]) == (5, "wi8_ai8", "metadata")
    entry.value = json.dumps({"scheme": "int4"})
    onnx.save(model, tmp_path / "net.onnx")
    result = CliRunner().invoke(app, ["audit", str(tmp_path / "net.onnx"), "--runtime", "none"])
    assert result.exit_code == 5
    assert "says no scheme that edgekd knows; most of its operators are fp32" in result.stdout
    assert "the file's own metadata says int4" in result.stdout
