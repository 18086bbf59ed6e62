"""Whether distillation paid, in words: what `edgekd fit` and `edgekd distill` both say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks import Task


def poor_teacher(teacher: float, scratch: float) -> str:
    """What to say loudly of a teacher no better than the student from scratch, by validation accuracy; else ""."""
    if teacher > scratch:
        return ""
    return (
        "THE TEACHER IS NO BETTER THAN THE STUDENT FROM SCRATCH on the validation split "
        f"({teacher:.4f} against {scratch:.4f}): it has little to teach; train it longer, or bring a better one"
    )


def verdict_on(gain: tuple[float, float]) -> str:
    """What the interval of the gain over scratch on the validation split says."""
    if gain[0] > 0:
        return "distillation paid: better than scratch on the validation split beyond its noise"
    if gain[1] < 0:
        return (
            "distillation hurt: worse than scratch on the validation split beyond its noise; keep the scratch student"
        )
    return "no difference beyond noise on the validation split"


def slice_masks(task: Task) -> Mapping[str, NDArray[np.bool_]]:
    """Every class, and the slices that the task declares, as masks (N,) over the test split."""
    return {f"class {name}": task.test.labels == index for index, name in enumerate(task.classes)} | dict(task.slices)
