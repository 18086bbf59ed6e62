"""Learning from labels."""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor

from edgekd.records import Hard
from edgekd.train.objectives.signals import UNLABELLED, Signals


def hard(signals: Signals, objective: Hard) -> Tensor:
    """The labels' loss, mean over those inputs of the batch that have one; 0 where none has.

    Classes: -sum_k q_k log softmax(s)_k, q = (1 - e) onehot(y) + e / K (label smoothing e: Szegedy et al. 2016,
    arXiv:1512.00567); s of shape (B, K), y of shape (B,). Labels: binary cross-entropy, mean over K. Values: mean
    squared difference.
    """
    student, labels = signals.student_logits, signals.labels
    if signals.outputs == "values":
        return functional.mse_loss(student, labels)
    if signals.outputs == "labels":
        smoothed = labels * (1 - objective.label_smoothing) + objective.label_smoothing / 2
        return functional.binary_cross_entropy_with_logits(student, smoothed)
    total = functional.cross_entropy(
        student, labels, ignore_index=UNLABELLED, reduction="sum", label_smoothing=objective.label_smoothing
    )
    return total / (labels != UNLABELLED).sum().clamp(min=1)
