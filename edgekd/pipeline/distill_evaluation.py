"""What a distillation brought: teacher, scratch and distilled on the validation and the test split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.core.statistics import paired_difference_interval
from edgekd.pipeline.distillation_verdict import poor_teacher, slice_masks, verdict_on
from edgekd.pipeline.stages import TrainedModel
from edgekd.pipeline.teaching import Teaching
from edgekd.pipeline.tune import Chosen
from edgekd.records import Recipe, Record, Tried
from edgekd.tasks import Task, student_inputs
from edgekd.train.calibration import expected_calibration_error
from edgekd.train.examples import correct, examples_of, logits_of
from edgekd.train.regimes import Note, Setting
from edgekd.train.regimes.adversarial import robust_accuracy


class Distilled(Record):
    """What `edgekd distill` prints. Accuracies are fractions; those without `val_` are of the test split.

    `scratch_accuracy` is of the same student on the same labels for the same number of steps, from the labels alone.
    `steps` are the kept student's own, `total_steps` those of every student and assistant trained. `verdict` compares
    distilled with scratch on the validation split, `gain_interval` on the test split (95 %, paired); `recommended` is
    scratch where distillation hurt beyond its noise on validation. `slices` are classes and the task's own slices of
    the test split, with the paired interval of the gain; `hurt_slices` those whose interval lies below 0.
    """

    task: str
    regime: str
    objectives: tuple[str, ...]
    seed: int
    accuracy: float
    val_accuracy: float
    scratch_accuracy: float
    scratch_val_accuracy: float
    teacher_accuracy: float
    teacher_val_accuracy: float
    agreement: float
    ece: float
    scratch_ece: float
    teacher_ece: float
    teacher_val_ece_before: float
    teacher_val_ece_after: float
    gain_interval: tuple[float, float]
    val_gain_interval: tuple[float, float]
    verdict: str
    seconds: float
    scratch_seconds: float
    teacher_seconds: float
    steps: int
    scratch_steps: int
    total_steps: int
    params: int
    labelled: int
    recommended: Literal["distilled", "scratch"]
    slices: dict[str, dict[str, float]]
    hurt_slices: tuple[str, ...]
    notes: dict[str, float | int | str | bool | None]
    warnings: tuple[str, ...]
    chosen_because: str | None = None
    tried: tuple[Tried, ...] = ()


def evaluate_distillation(
    recipe: Recipe,
    teaching: Teaching,
    setting: Setting,
    models: Mapping[str, nn.Module],
    student: TrainedModel,
    scratch: TrainedModel,
    chosen: Chosen | None = None,
) -> Distilled:
    """Evaluate `student`, `scratch` and `teacher`. The test split is read here, after everything has been decided."""
    task, teacher, warnings = teaching.task, teaching.teacher, tuple(teaching.warnings)
    shapes = {"student": setting.shape, "scratch": setting.shape, "teacher": setting.native}
    tests = {name: _logits(model, task.test.inputs, shapes[name], setting) for name, model in models.items()}
    validations = {
        name: _logits(model, task.validation.inputs, shapes[name], setting) for name, model in models.items()
    }
    test, validation = torch.from_numpy(task.test.labels), torch.from_numpy(task.validation.labels)
    right = {name: correct(logits, test) for name, logits in tests.items()}
    right_val = {name: correct(logits, validation) for name, logits in validations.items()}
    accuracy, val_accuracy = ({name: _mean(found) for name, found in which.items()} for which in (right, right_val))
    ece = {name: expected_calibration_error(logits, test) for name, logits in tests.items()}
    val_gain = paired_difference_interval(right_val["student"].tolist(), right_val["scratch"].tolist())
    if poor := poor_teacher(val_accuracy["teacher"], val_accuracy["scratch"]):
        warnings = (*warnings, poor)
    slices = _slices(task, right)
    return Distilled(
        task=task.name,
        regime=recipe.distill.regime,
        objectives=tuple(objective.kind for objective in recipe.distill.objectives),
        seed=recipe.seed,
        accuracy=accuracy["student"],
        val_accuracy=val_accuracy["student"],
        scratch_accuracy=accuracy["scratch"],
        scratch_val_accuracy=val_accuracy["scratch"],
        teacher_accuracy=accuracy["teacher"],
        teacher_val_accuracy=val_accuracy["teacher"],
        agreement=_mean(tests["student"].argmax(1) == tests["teacher"].argmax(1)),
        ece=ece["student"],
        scratch_ece=ece["scratch"],
        teacher_ece=ece["teacher"],
        teacher_val_ece_before=teacher.val_ece[0],
        teacher_val_ece_after=teacher.val_ece[1],
        gain_interval=paired_difference_interval(right["student"].tolist(), right["scratch"].tolist()),
        val_gain_interval=val_gain,
        verdict=verdict_on(val_gain),
        seconds=student.wall_s,
        scratch_seconds=scratch.wall_s,
        teacher_seconds=teacher.seconds,
        steps=student.steps,
        scratch_steps=scratch.steps,
        total_steps=student.total_steps,
        params=student.parameters,
        labelled=len(setting.data.train),
        recommended="scratch" if val_gain[1] < 0 else "distilled",
        slices=slices,
        hurt_slices=tuple(name for name, found in slices.items() if found["gain_high"] < 0),
        notes={**student.detail, **_robustness(recipe, task, setting, models)},
        warnings=warnings,
        chosen_because=None if chosen is None else chosen.reason,
        tried=() if chosen is None else chosen.tried,
    )


def _robustness(recipe: Recipe, task: Task, setting: Setting, models: Mapping[str, nn.Module]) -> dict[str, Note]:
    options = recipe.distill.adversarial
    if recipe.distill.regime != "adversarial" or options.form != "robust":
        return {}
    examples = examples_of(task.test, setting.shape)
    student, scratch = (
        robust_accuracy(models[name], examples.inputs, examples.labels, options, setting.device)
        for name in ("student", "scratch")
    )
    return {"robust_accuracy": student, "scratch_robust_accuracy": scratch}


def _logits(model: nn.Module, inputs: np.ndarray, shape: tuple[int, int, int], setting: Setting) -> Tensor:
    seen = torch.from_numpy(np.ascontiguousarray(student_inputs(inputs, shape)))
    return logits_of(model.to(setting.device), seen, setting.device)


def _slices(task: Task, right: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Accuracy by class and by the task's own slices, of student, scratch and teacher, on the test split."""
    found: dict[str, dict[str, float]] = {}
    for name, mask in slice_masks(task).items():
        if not mask.any():
            continue
        rows = torch.from_numpy(np.ascontiguousarray(mask))
        inside = {who: flags[rows] for who, flags in right.items()}
        low, high = paired_difference_interval(inside["student"].tolist(), inside["scratch"].tolist())
        found[name] = {who: _mean(flags) for who, flags in inside.items()}
        found[name] |= {"inputs": int(mask.sum()), "gain_low": low, "gain_high": high}
    return found


def _mean(flags: Tensor) -> float:
    return float(flags.float().mean())
