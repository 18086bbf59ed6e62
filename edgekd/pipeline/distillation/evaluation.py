"""What a distillation brought: teacher, scratch and distilled on the validation and the test split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.pipeline.distillation.teaching import Teaching
from edgekd.pipeline.distillation.tune import Chosen
from edgekd.pipeline.distillation.verdict import not_robust, poor_teacher, slice_masks, verdict_on
from edgekd.pipeline.stages import TrainedModel
from edgekd.records import Recipe, Record, Tried
from edgekd.tasks import Task, student_inputs
from edgekd.train.calibration import expected_calibration_error
from edgekd.train.examples import examples_of, labels_of, logits_of
from edgekd.train.metrics import CLOSENESS, Metric, gain_interval
from edgekd.train.regimes import Setting
from edgekd.train.regimes.adversarial import robust_accuracy


class Distilled(Record):
    """What `edgekd distill` prints. Accuracies are fractions; those without `val_` are of the test split.

    Where the outputs are independent labels or values, every `accuracy` is the figure that `metric` names, and `better`
    says which way it goes; gains are positive where the student is better, either way. `agreement` is the closeness to
    the teacher that `agreement_measure` names. Values have no calibration error: their `ece` is null.
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
    ece: float | None
    scratch_ece: float | None
    teacher_ece: float | None
    teacher_val_ece_before: float | None
    teacher_val_ece_after: float | None
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
    metric: str = "accuracy"
    better: Literal["higher", "lower"] = "higher"
    agreement_measure: str = "share of inputs given the same class"

    @property
    def gain(self) -> float:
        """How much better the distilled student is than the one from scratch, on the test split."""
        return (self.accuracy - self.scratch_accuracy) * (1 if self.better == "higher" else -1)


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
    test, validation, metric = labels_of(task.test), labels_of(task.validation), setting.metric
    accuracy = {name: metric.value(outputs, test) for name, outputs in tests.items()}
    val_accuracy = {name: metric.value(outputs, validation) for name, outputs in validations.items()}
    calibrated = task.outputs != "regression"
    ece = {name: expected_calibration_error(logits, test) if calibrated else None for name, logits in tests.items()}
    val_gain = gain_interval(metric, validations["student"], validations["scratch"], validation)
    if poor := poor_teacher(val_accuracy["teacher"], val_accuracy["scratch"], metric):
        warnings = (*warnings, poor)
    robustness = _robustness(recipe, task, setting, models)
    if brittle := not_robust(robustness):
        warnings = (*warnings, brittle)
    slices = _slices(task, metric, tests)
    measure, closeness = CLOSENESS[task.outputs]
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
        agreement=closeness(tests["student"], tests["teacher"]),
        ece=ece["student"],
        scratch_ece=ece["scratch"],
        teacher_ece=ece["teacher"],
        teacher_val_ece_before=teacher.val_ece[0],
        teacher_val_ece_after=teacher.val_ece[1],
        gain_interval=gain_interval(metric, tests["student"], tests["scratch"], test),
        val_gain_interval=val_gain,
        verdict=verdict_on(val_gain, recipe.distill),
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
        notes={**student.detail, **robustness},
        warnings=warnings,
        chosen_because=None if chosen is None else chosen.reason,
        tried=() if chosen is None else chosen.tried,
        metric=metric.name,
        better=metric.better,
        agreement_measure=measure,
    )


def _robustness(recipe: Recipe, task: Task, setting: Setting, models: Mapping[str, nn.Module]) -> dict[str, float]:
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


def _slices(task: Task, metric: Metric, tests: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """The metric by the task's own slices and by class, label or value, of all three on the test split."""
    found: dict[str, dict[str, float]] = {}
    for name, mask in slice_masks(task).items():
        if mask.any():
            found[name] = _slice(metric, tests, labels_of(task.test), torch.from_numpy(np.ascontiguousarray(mask)))
    if task.outputs != "classes":
        for index, name in enumerate(task.classes):
            column = {who: outputs[:, index : index + 1] for who, outputs in tests.items()}
            found[f"output {name}"] = _slice(metric, column, labels_of(task.test)[:, index : index + 1], None)
    return found


def _slice(metric: Metric, tests: Mapping[str, Tensor], labels: Tensor, rows: Tensor | None) -> dict[str, float]:
    if rows is not None:
        tests, labels = {who: outputs[rows] for who, outputs in tests.items()}, labels[rows]
    low, high = gain_interval(metric, tests["student"], tests["scratch"], labels)
    values = {who: metric.value(outputs, labels) for who, outputs in tests.items()}
    return {**values, "inputs": len(labels), "gain_low": low, "gain_high": high}
