"""Learning from the teacher's outputs."""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor

from edgekd.records import Objective
from edgekd.train.objectives.signals import Signals


def hinton(signals: Signals, objective: Objective) -> Tensor:
    """Soft targets at a temperature (Hinton, Vinyals, Dean 2015, arXiv:1503.02531).

    T**2 * mean over the batch of KL(softmax(t / T) || softmax(s / T)); s and t of shape (B, K). The factor keeps
    the gradient's size independent of T.
    """
    temperature = objective.temperature
    student = functional.log_softmax(signals.student_logits / temperature, dim=1)
    teacher = functional.log_softmax(signals.teacher() / temperature, dim=1)
    return temperature**2 * functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
