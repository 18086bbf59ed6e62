"""`edgekd fit` follows the whole recipe: regimes, objectives, brought teachers; and says so where distilling fails."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

DIGITS = Path(__file__).resolve().parents[1] / "digits_task.py"
RECIPE = f"""
ablation = "scratch"

[task]
name = "{DIGITS}"

[student]
search = "ladder"
grow = 1

[student.fixed]
width = 8
depth = 1

[distill]
regime = "multi_teacher"
calibration = "temperature"

[distill.multi_teacher]
teachers = 2

[[distill.objectives]]
kind = "hard"
weight = 0.5

[[distill.objectives]]
kind = "dkd"
weight = 0.5

[[distill.objectives]]
kind = "relational"
weight = 0.2

[distill.training]
epochs = 6
learning_rate = 0.01

[quantize]
qat = "always"

[quantize.training]
epochs = 1
learning_rate = 0.001
ema_decay = 0.0
"""


def fit(place, *arguments):
    result = subprocess.run(
        [sys.executable, "-c", "from edgekd.cli import main; main()", "fit", *map(str, arguments), "--json"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "COLUMNS": "100"},
    )
    return result, json.loads(result.stdout) if result.stdout.startswith("{") else {}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teaching")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def test_a_whole_recipe_is_followed_and_resumed_without_training(place):
    arguments = ("recipe.toml", "--profile", "host", "--out", "run", "--slice-accuracy-drop-max", 60)
    result, report = fit(place, *arguments)
    assert result.returncode in (0, 6), result.stderr
    taught, rounded = report["distillation"], report["quantization"]
    assert (taught["regime"], taught["objectives"]) == ("multi_teacher", ["hard", "dkd", "relational"])
    assert taught["teacher_val_ece_after"] < taught["teacher_val_ece_before"]
    assert taught["notes"]["teachers"] == 2
    assert taught["val_gain_interval"][0] < taught["val_gain_interval"][1]
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert {"teacher", "teacher-100-100", "student-1", "scratch", "ptq", "qat", "convert"} <= set(stages)
    assert stages["scratch"]["detail"]["steps"] == stages["student-1"]["detail"]["steps"]
    assert rounded["qat_reason"] == "was run: --qat always"
    assert rounded["chosen"] in ("ptq", "qat") and len(rounded["layers"]) > 3
    slices = {one["name"]: one for one in report["accuracy"]["slices"]}
    assert len(slices) == 10 and sum(one["inputs"] for one in slices.values()) == 540
    (verdict,) = [one for one in report["verdicts"] if one["constraint"] == "slice_accuracy_drop_max"]
    assert "worst slice: class" in verdict["reason"] and verdict["basis"] == "measured"
    page = (place / "run/report.html").read_text()
    assert "Where accuracy goes: layer by layer" in page and "Classes and slices" in page

    before = {path.name: path.stat().st_mtime_ns for path in (place / "run/stages").glob("*.pt")}
    again, resumed = fit(place, *arguments, "--resume")
    assert again.returncode == result.returncode, again.stderr
    assert {path.name: path.stat().st_mtime_ns for path in (place / "run/stages").glob("*.pt")} == before
    for part in ("distillation", "accuracy", "artifacts", "verdicts"):
        assert resumed[part] == report[part]
    assert resumed["quantization"] == rounded


def test_scratch_is_kept_where_a_bad_teacher_spoils_the_student_and_that_is_said_loudly(place):
    torch.manual_seed(0)
    torch.save(runpy.run_path(str(DIGITS))["load"]().teacher.build().state_dict(), place / "untrained.pt")
    (place / "soft.toml").write_text(
        RECIPE.split("[distill]")[0]
        + '[[distill.objectives]]\nkind = "hinton"\n[distill.training]\nepochs = 6\nlearning_rate = 0.01\n'
    )
    arguments = ("soft.toml", "--profile", "host", "--out", "bad", "--teacher", "untrained.pt", "--qat", "never")
    result, report = fit(place, *arguments)
    assert result.returncode == 0, result.stderr
    assert report["distillation"]["kept"] == "scratch"
    assert "DISTILLATION DID NOT PAY" in result.stderr.replace("\n", " ")
    assert any("THE TEACHER IS NO BETTER" in warning for warning in report["warnings"])
    accuracy = report["accuracy"]
    assert accuracy["student_fp32"] == pytest.approx(accuracy["scratch"], abs=0.005)
    assert accuracy["distilled"] < accuracy["scratch"]
    assert "untrained.pt" in (place / "bad/recipe.toml").read_text()
    assert "teacher.pt" not in {path.name for path in (place / "bad/stages").iterdir()}
    assert report["quantization"]["qat"] is None
