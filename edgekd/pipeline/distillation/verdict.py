"""Whether distillation paid, in words: what `edgekd fit` and `edgekd distill` both say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgekd.records import Distillation
from edgekd.tasks import Task
from edgekd.train.metrics import METRICS, Metric


def poor_teacher(teacher: float, scratch: float, metric: Metric = METRICS["accuracy"]) -> str:
    """What to say loudly of a teacher no better than the student from scratch, on the validation split; else ""."""
    if metric.of_score(teacher) > metric.of_score(scratch):
        return ""
    return (
        "THE TEACHER IS NO BETTER THAN THE STUDENT FROM SCRATCH on the validation split "
        f"({teacher:.4f} against {scratch:.4f}): it has little to teach; train it longer, or bring a better one"
    )


def not_robust(accuracies: Mapping[str, float]) -> str:
    """What to say loudly where the adversarial regime brought no robustness; else ""."""
    if not accuracies or accuracies["robust_accuracy"] > accuracies["scratch_robust_accuracy"]:
        return ""
    return (
        "THE STUDENT IS NO MORE ROBUST THAN THE ONE FROM SCRATCH: under attack it answers "
        f"{accuracies['robust_accuracy']:.4f} of the test inputs rightly, the one from scratch "
        f"{accuracies['scratch_robust_accuracy']:.4f}: train longer, raise distill.adversarial.attack_steps, or take a "
        "smaller epsilon"
    )


def verdict_on(gain: tuple[float, float], distill: Distillation | None = None) -> str:
    """What the interval of the gain over scratch on the validation split says, for the regime that was followed."""
    if distill is not None and distill.regime == "data_free" and gain[1] < 0:
        return (
            "behind the same student trained on the real labels, by validation beyond noise: data_free is for when "
            "there are none"
        )
    if distill is not None and distill.regime == "adversarial" and distill.adversarial.form == "robust" and gain[1] < 0:
        return (
            "worse than scratch on clean inputs, by validation beyond noise: this regime is for robust_accuracy "
            "against scratch_robust_accuracy"
        )
    if distill is not None and distill.continual.start is not None:
        return (
            "the student went on from a deployed one: compare val_accuracy_before and _after; the scratch student "
            "learnt for as many steps, but from nothing"
        )
    if gain[0] > 0:
        return "distillation paid: better than scratch on the validation split beyond its noise"
    if gain[1] < 0:
        return (
            "distillation hurt: worse than scratch on the validation split beyond its noise; keep the scratch student"
        )
    return "no difference beyond noise on the validation split"


def slice_masks(task: Task) -> Mapping[str, NDArray[np.bool_]]:
    """Every class, and the slices that the task declares, as masks (N,) over the test split."""
    if task.outputs != "classes":
        return task.slices
    return {f"class {name}": task.test.labels == index for index, name in enumerate(task.classes)} | dict(task.slices)
