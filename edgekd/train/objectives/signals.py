"""What an objective may look at for one batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Signals:
    """One batch as the objectives see it.

    Args:
        student_logits: (B, K) float32, with gradient.
        labels: (B,) int64.
        teacher_logits: (B, K) float32, without gradient; None where no teacher takes part.
    """

    student_logits: Tensor
    labels: Tensor
    teacher_logits: Tensor | None = None

    def teacher(self) -> Tensor:
        """The teacher's logits, which the caller knows to be there."""
        assert self.teacher_logits is not None, "an objective that needs a teacher was run without one"
        return self.teacher_logits
