"""Accuracy by class and by declared slice: which of them distillation or rounding hurt beyond their noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.core.statistics import CONFIDENCE, paired_difference_interval, proportion_interval
from edgekd.records import Accuracy, Change, SliceAccuracy

MODELS = ("teacher", "scratch", "distilled", "student_fp32", "student_int8")


def slice_accuracies(accuracy: Accuracy, masks: Mapping[str, NDArray[np.bool_]]) -> tuple[SliceAccuracy, ...]:
    """One entry for each slice that has inputs.

    Changes get intervals that hold for all slices at once, by Bonferroni: among ten slices one would else be flagged
    in every fourth run by chance alone.

    Args:
        accuracy: right and wrong answers of each model over the test split.
        masks: (N,) over the test split, by the slice's name.
    """
    right = {name: np.asarray(flags) for name in MODELS if (flags := getattr(accuracy, f"{name}_correct"))}
    used = {name: mask for name, mask in masks.items() if mask.any()}
    confidence = simultaneous(len(used))
    return tuple(_slice(name, mask, right, confidence) for name, mask in used.items())


def simultaneous(count: int) -> float:
    """The confidence of each of so many intervals that hold together at 95 %, whatever their dependence."""
    return 1 - (1 - CONFIDENCE) / max(1, count)


def _slice(
    name: str, mask: NDArray[np.bool_], right: Mapping[str, NDArray[np.bool_]], confidence: float
) -> SliceAccuracy:
    inside = {model: flags[mask].tolist() for model, flags in right.items()}
    total = int(mask.sum())

    def change(first: str, second: str) -> Change | None:
        if first not in inside or second not in inside:
            return None
        pair: tuple[Sequence[bool], Sequence[bool]] = inside[first], inside[second]
        interval = paired_difference_interval(*pair, confidence)
        return Change(value=(sum(pair[0]) - sum(pair[1])) / total, interval=interval)

    distillation = change("distilled" if "distilled" in inside else "student_fp32", "scratch")
    quantization = change("student_int8", "student_fp32")
    found = {"distillation": distillation, "quantization": quantization}
    # A student from scratch that was kept was not hurt by a distillation that was thrown away.
    kept = {name: one for name, one in found.items() if not (name == "distillation" and "distilled" in inside)}
    return SliceAccuracy(
        name=name,
        inputs=total,
        accuracy={model: sum(flags) / total for model, flags in inside.items()},
        intervals={model: proportion_interval(sum(flags), total) for model, flags in inside.items()},
        distillation=distillation,
        quantization=quantization,
        drop=change("teacher", "student_int8"),
        hurt_by=tuple(name for name, one in kept.items() if one is not None and one.interval[1] < 0),  # type: ignore[misc]
    )
