"""`edgekd fit` with layers in float: kept there for accuracy, or because they have no int8 form; and learned ranges."""

import json
import re
import shutil
from pathlib import Path

import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from command_line import edgekd

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parents[1]
RECIPE = """
ablation = "none"

[task]
name = "digits_task.py"

[student]
space = "user_spaces.py:uneven"

[distill.training]
epochs = 10
learning_rate = 0.01

[quantize]
mixed = true
float_io = true

[quantize.training]
epochs = 1
learning_rate = 0.0003
ema_decay = 0.0
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounding")
    for name in ("digits_task.py", "user_spaces.py"):
        shutil.copy(TESTS / name, folder)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def stages(place, run):
    return {path.name: path.stat().st_mtime_ns for path in (place / run / "stages").iterdir()}


def test_layers_stay_in_float_until_the_budget_holds_all_says_so_and_another_opset_trains_nothing_again(place):
    arguments = ("fit", "recipe.toml", "--profile", "rpi4", "--accuracy-drop-max", "0.1", "--steps", "learned")
    result = edgekd(*arguments, "--opset", 18, "--out", "run", "--json", cwd=place)
    assert result.returncode in (0, 1, 6), result.stderr
    report = json.loads(result.stdout)
    found = report["quantization"]
    teacher = report["distillation"]["teacher_val_accuracy"]
    assert found["qat"]["validation_accuracy"] < teacher - 0.1 <= found["fp32"]["validation_accuracy"]
    assert found["qat"]["detail"]["ranges"] == "learned"
    assert found["mixed"]["holds"] and found["mixed"]["step"]["validation_accuracy"] >= teacher - 0.1
    assert found["scheme"] == "wi8_ai8_mixed" and not found["float_operators"]
    in_float = {layer["layer"] for layer in found["layers"] if layer["in_float"]}
    assert in_float and in_float < {layer["layer"] for layer in found["layers"]}
    assert {artifact["scheme"] for artifact in report["artifacts"]} == {"wi8_ai8_mixed", "fp32"}
    assert min(pair["top1_agreement"] for pair in report["parity"]) >= 0.99
    reasons = {verdict["constraint"]: verdict["reason"] for verdict in report["verdicts"]}
    assert "the student is wi8_ai8_mixed" in reasons["accuracy_drop_max"]
    assert "of the multiply-accumulates are in float" in reasons["latency_p90_ms"]
    page = (place / "run/report.html").read_text()
    assert "Quantization to wi8_ai8_mixed" in page and "Student mixed" in page and "in float</span>" in page

    assert onnx.load(place / "run/student.onnx").opset_import[0].version == 18
    interpreter = Interpreter(model_path=str(place / "run/student.tflite"))
    assert interpreter.get_input_details()[0]["dtype"].__name__ == "float32"

    before = stages(place, "run")
    again = edgekd(*arguments, "--out", "run", "--resume", "--json", cwd=place)
    assert again.returncode == result.returncode, again.stderr
    for part in ("quantization", "accuracy", "student"):
        assert json.loads(again.stdout)[part] == report[part]
    assert onnx.load(place / "run/student.onnx").opset_import[0].version == 17
    changed = {name for name, when in stages(place, "run").items() if before[name] != when}
    assert changed == {"convert.json", "evaluate.json"}


def test_the_other_commands_read_a_mixed_run(place):
    told = json.loads(edgekd("parity", "run", "--json", cwd=place).stdout)
    assert told["verdict"] == "agree" and told["accuracy"]["torch"] == pytest.approx(
        told["accuracy"]["tflite"], abs=0.01
    )
    refused = edgekd("audit", "run/student.tflite", "--scheme", "wi8_ai8", cwd=place)
    assert refused.returncode == 5
    shown = " ".join(edgekd("report", "run", cwd=place).stdout.split())
    assert re.search(r"Mixed \(worst layers in float\) .* of 10 layers in float, kept", shown)
    assert "kept in float" in shown and "learned ranges (LSQ+)" in shown


def test_what_has_no_int8_form_is_refused_before_training_or_kept_in_float_by_leave(place):
    arguments = ("fit", "recipe.toml", "--space", "user_spaces.py:normed", "--profile", "host", "--json")
    refused = edgekd(*arguments, "--out", "no", cwd=place)
    assert refused.returncode == 3 and not (place / "no").exists()
    said = " ".join(refused.stderr.split())
    assert "width=16: no int8 form is known for network.5.norm (layer_norm)" in said or "5.norm (layer_norm)" in said
    assert "--allow-float-ops" in said
    result = edgekd(*arguments, "--out", "leave", "--allow-float-ops", cwd=place)
    assert result.returncode in (0, 1, 6), result.stderr
    report = json.loads(result.stdout)
    assert report["quantization"]["scheme"] == "wi8_ai8_mixed"
    assert any("layer_norm" in name for name in report["quantization"]["float_operators"])
    assert report["quantization"]["mixed"]["reason"].startswith("not needed")
    assert "in float" in report["student"]["predicted"]["latency_p90_ms"]["source"]
    shown = " ".join(edgekd("report", "leave", cwd=place).stdout.split())
    assert "in float, without an int8 form" in shown
