"""What an objective may look at for one batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from edgekd.records import Objective
from edgekd.tasks import Outputs

UNLABELLED = -1
"""The label of an input whose class nobody knows: terms that learn from labels pass over it. NaN for other outputs."""


class FeaturePair(NamedTuple):
    """Feature maps (B, C_s, H, W) and (B, C_t, H', W') of layers at a like resolution; the teacher's has no gradient.

    For `fitnet` the student's has been through its regressor, and both have the same shape.
    """

    student: Tensor
    teacher: Tensor


@dataclass(frozen=True)
class Signals:
    """One batch as the objectives see it.

    Args:
        student_logits: (B, K) float32, with gradient.
        labels: (B,) int64, `UNLABELLED` where there is none; else (B, K) float32, NaN where there is none: of 0 and 1
            for `outputs = "multi_label"`, of anything for `outputs = "regression"`.
        teacher_logits: (B, K) float32, without gradient; None where no teacher takes part.
        features: pairs of feature maps by objective, where an objective needs them.
        outputs: what the K outputs are: one of K classes, K independent labels, or K values (regression).
    """

    student_logits: Tensor
    labels: Tensor
    teacher_logits: Tensor | None = None
    features: Mapping[Objective, tuple[FeaturePair, ...]] = field(default_factory=dict)
    outputs: Outputs = "classes"

    def teacher(self) -> Tensor:
        """The teacher's logits, which the caller knows to be there."""
        assert self.teacher_logits is not None, "an objective that needs a teacher was run without one"
        return self.teacher_logits
