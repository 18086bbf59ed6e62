"""`edgekd distill` on tasks of independent labels and of values: figures, intervals, slices, and what is refused."""

import json
from pathlib import Path

import garments_task
import pytest
import rotation_task
from digits_task import Quiet
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.pipeline.distillation.ablation import ablate
from edgekd.pipeline.distillation.distill import distill_task
from edgekd.pipeline.distillation.tune import Choice
from edgekd.records import Distillation, Recipe, StudentChoice, TaskChoice, Training

HERE = Path(__file__).parent
SCHEDULE = Training(epochs=3, learning_rate=1e-2, batch_size=32, ema_decay=0.9)
SMALL = {
    "signal": {"width": 8, "depth": 1, "window": 64, "stem_stride": 2, "kernel": 5},
    "image": {"width": 4, "depth": 1, "expansion": 2, "kernel": 3, "stem_stride": 1},
}


def recipe(task, **distill):
    from edgekd.core.spaces import space_named

    names = space_named(task.default_space).dimensions(task.input_shape)
    fixed = {name: value for name, value in SMALL[task.kind].items() if name in names}
    return Recipe(
        task=TaskChoice(name=task.name),
        student=StudentChoice(fixed=fixed),
        teacher=task.teacher.training,
        distill=Distillation(training=SCHEDULE, **distill),
    )


@pytest.fixture(scope="module", params=["regression", "mae", "multi_label"])
def taught(request):
    task = {
        "regression": rotation_task.load,
        "mae": lambda: rotation_task.load(metric="mae"),
        "multi_label": garments_task.load,
    }[request.param]()
    return distill_task(recipe(task), task, Quiet())


def test_figures_are_the_tasks_metric_and_gains_are_positive_where_the_student_is_better(taught):
    result, task = taught.result, taught.teaching.task
    assert result.metric == (task.metric or "f1")
    assert result.better == ("lower" if result.metric == "mae" else "higher")
    low, high = result.gain_interval
    assert low <= result.gain <= high
    sign = -1 if result.metric == "mae" else 1
    assert result.gain == pytest.approx(sign * (result.accuracy - result.scratch_accuracy))
    if result.metric == "mae":
        # Standardised values: always saying the mean errs by about 0.8.
        assert 0 < result.accuracy < 0.8
        assert 0 < result.teacher_val_accuracy < 0.8
    else:
        assert result.accuracy > 0.1
    assert (result.recommended == "scratch") == (result.val_gain_interval[1] < 0)
    assert (result.ece is None) == (task.outputs == "regression")
    assert result.agreement <= 1
    assert "R2" in result.agreement_measure or "labels" in result.agreement_measure


def test_each_output_and_each_declared_slice_has_its_figures(taught):
    result, task = taught.result, taught.teaching.task
    assert set(result.slices) == {*task.slices, *(f"output {name}" for name in task.classes)}
    for found in result.slices.values():
        sign = -1 if result.metric == "mae" else 1
        assert found["gain_low"] <= sign * (found["student"] - found["scratch"]) <= found["gain_high"]


def test_auto_tries_only_what_has_a_meaning():
    task = garments_task.load(images=400)
    result = distill_task(recipe(task), task, Quiet(), choice=Choice()).result
    assert [tried.objectives[-1] for tried in result.tried] == ["hard", "hinton"]
    assert "validation F1, mean over the labels" in result.chosen_because


def test_an_ablation_counts_gains_the_right_way_round(taught):
    found = ablate(taught.teaching, taught.design, taught.recipe.distill, 1)
    scratch, alone, combined = found.rows
    assert (scratch.ece is None) == (taught.result.metric != "f1")
    sign = -1 if taught.result.metric == "mae" else 1
    assert combined.gain == pytest.approx(sign * (combined.mean - scratch.mean))
    assert alone.objectives == ("hinton",)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_distill_prints_them_and_fit_and_quantize_refuse_them_by_name(tmp_path, capfd):
    rotation, model = HERE / "rotation_task.py", tmp_path / "model.py"
    model.write_text("from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())\n")
    ran = invoke("distill", "--task", rotation, "--epochs", 1, "--json")
    assert ran.exit_code == 0, ran.output
    result = json.loads(ran.stdout)
    assert (result["metric"], result["better"], result["ece"]) == ("r2", "higher", None)
    for arguments, said in (
        (("distill", "--task", rotation, "--objective", "dkd"), "'dkd' compares distributions over classes"),
        (("distill", "--task", rotation, "--regime", "data_free"), "'data_free' is for classes"),
        (("fit", "--task", rotation, "--profile", "host"), "the outputs are values, and `edgekd fit`"),
        (
            ("quantize", f"{model}:make", "--calib", rotation, "--out", tmp_path / "out"),
            "the task's outputs are values, and `edgekd quantize`",
        ),
    ):
        ran = invoke(*arguments)
        assert ran.exit_code == 3
        assert said in ran.output + "".join(capfd.readouterr())


def test_distilling_goes_on_from_a_deployed_student(tmp_path, capfd):
    digits, weights = HERE / "digits_task.py", tmp_path / "deployed.pt"
    small = tmp_path / "small.toml"
    small.write_text(
        "[student.fixed]\nwidth = 4\nexpansion = 2\n"
        "[distill.training]\nepochs = 2\nlearning_rate = 1e-2\nbatch_size = 32\n"
    )
    assert invoke("distill", small, "--task", digits, "--save", weights).exit_code == 0
    ran = invoke("distill", small, "--task", digits, "--from", weights, "--json")
    assert ran.exit_code == 0, ran.output
    result = json.loads(ran.stdout)
    assert result["regime"] == "continual"
    assert result["notes"]["start"] == str(weights)
    assert result["val_accuracy"] >= result["notes"]["val_accuracy_before"] - 1e-6
    assert "went on from a deployed one" in result["verdict"]
    for arguments, said in (
        (("--from", tmp_path / "nothing"), "does not exist: name a run or a file of weights"),
        (("--from", small), "not torch weights"),
        (("--from", weights, "--regime", "self"), "is for distill.regime = 'continual', not 'self'"),
    ):
        ran = invoke("distill", small, "--task", digits, *arguments)
        assert ran.exit_code == 3
        shown = ran.output + "".join(capfd.readouterr())
        assert said in shown
        assert "teacher  trained" not in shown
    ran = invoke("distill", "--task", digits, "--from", weights)
    assert ran.exit_code == 3
    assert "the weights do not fit the student" in ran.output + "".join(capfd.readouterr())
