"""`edgekd parity` on a run that `edgekd fit` made, and on one that was tampered with."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.store import hash_file

pytestmark = pytest.mark.slow

RECIPE = f"""
[task]
name = "{Path(__file__).resolve().parents[1] / "digits_task.py"}"

[student]
search = "ladder"
grow = 1

[student.fixed]
width = 8
depth = 1

[distill.training]
epochs = 6
learning_rate = 0.01

[quantize.training]
epochs = 2
learning_rate = 0.001
ema_decay = 0.0
"""
PAIRS = [
    "float-torch",
    "torch-onnx",
    "onnx-onnx deployed",
    "onnx-tflite reference",
    "tflite reference-tflite",
    "onnx-tflite",
    "torch-tflite",
]


def edgekd(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    (folder / "recipe.toml").write_text(RECIPE)
    result = edgekd("fit", folder / "recipe.toml", "--profile", "host", "--out", folder / "run")
    assert (folder / "run" / "report.json").is_file(), result.output
    return folder / "run"


def test_every_rung_is_there_and_those_of_one_set_of_parameters_agree(run):
    result = edgekd("parity", run, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["verdict"] == "agree"
    assert [rung["pair"] for rung in found["rungs"]] == PAIRS
    for rung in found["rungs"]:
        assert {"pair", "top1_agreement", "max_abs_lsb", "first_divergent_layer"} <= set(rung)
        assert rung["inputs"] == found["inputs"] == 357
        if rung["bound"]:
            assert rung["top1_agreement"] >= rung["bound"] and rung["max_abs_lsb"] <= 2
    assert found["accuracy"]["float"] == pytest.approx(found["accuracy"]["tflite"], abs=0.05)
    assert any("not measured on a board" in note for note in found["notes"])


def test_files_of_another_model_are_found_out_and_the_layer_named(run, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    chosen = json.loads((other / "report.json").read_text())["quantization"]["chosen"]
    checkpoint = other / "stages" / f"{chosen}.pt"
    state = torch.load(checkpoint, weights_only=True)
    name = next(name for name in state if name.startswith("layers.001") and name.endswith("weight"))
    state[name] = -state[name]
    torch.save(state, checkpoint)
    result = edgekd("parity", other)
    assert result.exit_code == 5
    assert "is not what the files were made from" in " ".join(result.output.split())
    report = json.loads((other / "report.json").read_text())
    for artifact in report["artifacts"]:
        artifact["parent"] = hash_file(checkpoint)
    (other / "report.json").write_text(json.dumps(report))
    result = edgekd("parity", other, "--json")
    assert result.exit_code == 5, result.output
    parted = {rung["pair"]: rung for rung in json.loads(result.stdout)["rungs"]}
    assert parted["onnx-tflite"]["first_divergent_layer"] is None
    assert parted["torch-onnx"]["first_divergent_layer"] is not None


def test_what_is_no_finished_run_is_a_configuration_error(run, tmp_path):
    assert edgekd("parity", tmp_path / "gone").exit_code == 3
    unfinished = tmp_path / "run"
    shutil.copytree(run, unfinished)
    (unfinished / "report.json").unlink()
    assert edgekd("parity", unfinished).exit_code == 3
