import json

import pytest
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.core.architecture import operator_list
from edgekd.core.costs import latency_model_for
from edgekd.core.latency_model import predict
from edgekd.core.spaces import SPACES
from edgekd.load import load_profile

CHOICES = {"window": 96, "stem_stride": 2, "kernel": 5, "width": 16, "depth": 3}
ARCHITECTURE = SPACES["ds-cnn"].architecture(CHOICES, (6, 1, 128), 7)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from edgekd.convert.random_student import write_random_student
    from edgekd.nn.students import Student, example_input

    folder = tmp_path_factory.mktemp("predict")
    for name in ("student.tflite", "student.onnx"):
        write_random_student(Student(ARCHITECTURE).eval(), example_input(ARCHITECTURE), folder / name)
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)], env={"COLUMNS": "200"})


def test_a_file_is_predicted_like_the_declaration_it_was_written_from(files):
    result = run(files / "student.tflite", "--profile", "rpi4", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    model = latency_model_for(load_profile("rpi4"), "wi8_ai8")
    expected = predict(model, operator_list(ARCHITECTURE))
    assert found["scheme"] == "wi8_ai8"
    assert found["latency_ms"] == pytest.approx(expected.value)
    assert found["interval_ms"] == pytest.approx([expected.low, expected.high])
    assert found["energy_mj"] is None
    assert 1 < found["peak_memory_mib"] < 20
    assert found["file_size_kib"] == (files / "student.tflite").stat().st_size / 1024
    shares = [operator["share"] for operator in found["per_operator"]]
    assert len(shares) == len(operator_list(ARCHITECTURE).operators)
    assert sum(shares) == pytest.approx(1)
    parts = [operator["latency_ms"] for operator in found["per_operator"]]
    assert sum(parts) + found["overhead_ms"] == pytest.approx(found["latency_ms"])


def test_people_see_the_interval_and_that_it_is_a_prior(files):
    result = run(files / "student.tflite", "--profile", "rpi4")
    assert result.exit_code == 0, result.output
    assert "90 % interval" in result.stdout
    assert "edgekd calibrate --profile rpi4" in result.stdout
    assert "pointwise" in result.stdout


def test_a_runtime_without_a_model_gives_no_latency_and_says_so(files):
    found = json.loads(run(files / "student.onnx", "--profile", "rpi4", "--json").stdout)
    assert found["latency_ms"] is found["interval_ms"] is None
    assert any(
        "no latency model of onnx" in note and "--board HOST --runtime onnx` makes one" in note
        for note in found["notes"]
    )


def test_a_scheme_that_is_not_calibrated_is_not_promised_one(tmp_path):
    from edgekd.convert.random_student import write_random_student
    from edgekd.nn.students import Student, example_input

    write_random_student(Student(ARCHITECTURE).eval(), example_input(ARCHITECTURE), tmp_path / "a.tflite", "fp16")
    found = json.loads(run(tmp_path / "a.tflite", "--profile", "rpi4", "--json").stdout)
    assert any(
        "no latency model of tflite for fp16" in note and "makes those of wi8_ai8 and fp32 only" in note
        for note in found["notes"]
    )


def test_other_files_are_refused(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    (tmp_path / "broken.tflite").write_bytes(b"TFL3 but nothing else")
    assert run(tmp_path / "none.tflite", "--profile", "rpi4").exit_code == 3
    assert run(tmp_path / "model.pt", "--profile", "rpi4").exit_code == 3
    assert run(tmp_path / "broken.tflite", "--profile", "rpi4").exit_code == 3
    assert run(tmp_path / "none.tflite", "--profile", "rpi44").exit_code == 3
