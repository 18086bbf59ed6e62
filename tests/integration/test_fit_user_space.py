"""`edgekd fit` with a student space of a user's own: searched, trained, quantized, converted and judged."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import edgekd

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parents[1]
RECIPE = """
ablation = "none"

[task]
name = "digits_task.py"

[student]
space = "user_spaces.py:space"
search = "halving"
pool = 2

[distill.training]
epochs = 6
learning_rate = 0.01

[quantize.training]
epochs = 1
learning_rate = 0.001
"""


def test_a_users_own_students_are_fitted_and_the_file_is_one_of_them(tmp_path):
    for name in ("digits_task.py", "user_spaces.py"):
        shutil.copy(TESTS / name, tmp_path)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    arguments = ("--profile", "host", "--board", "local", "--out", "run", "--json")
    result = edgekd("fit", "recipe.toml", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["student"]["space"] == f"{tmp_path}/user_spaces.py:space"
    assert set(report["student"]["choices"]) == {"width", "depth"}
    assert report["accuracy"]["student_int8"] > 0.5
    (timed,) = [stage["detail"]["rows"] for stage in report["stages"] if stage["name"] == "board-check"]
    kept = {row["candidate"] for row in timed if row["kept"]}
    short = [stage for stage in report["stages"] if stage["name"].startswith("short-")]
    assert 3 <= len(short) <= len(kept), "each student was timed on the board before it was trained"
    assert " ".join(f"{name}={value}" for name, value in report["student"]["choices"].items()) in kept
    told = edgekd("predict", "run/student.tflite", "--profile", "host", "--json", cwd=tmp_path)
    assert json.loads(told.stdout)["macs"] == report["student"]["macs"]
    refused = edgekd(
        "fit", "--task", "digits_task.py", "--space", "user_spaces.py:fails", "--profile", "host", cwd=tmp_path
    )
    assert refused.returncode == 3
    assert "fails with width=16" in refused.stderr
