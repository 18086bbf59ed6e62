"""Learning from labels."""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor

from edgekd.records import Hard
from edgekd.train.objectives.signals import UNLABELLED, Signals


def hard(signals: Signals, objective: Hard) -> Tensor:
    """The labels' loss, mean over what in the batch has a label; 0 where nothing has.

    Classes: -sum_k q_k log softmax(s)_k, q = (1 - e) onehot(y) + e / K (label smoothing e: Szegedy et al. 2016,
    arXiv:1512.00567); s of shape (B, K), y of shape (B,). Independent labels: binary cross-entropy with the target
    (1 - e) y + e / 2, mean over (B, K). Values: mean squared difference.
    """
    student, labels = signals.student_logits, signals.labels
    if signals.outputs != "classes":
        known = ~labels.isnan()
        target = labels.nan_to_num()
        if signals.outputs == "multi_label":
            smoothed = target * (1 - objective.label_smoothing) + objective.label_smoothing / 2
            terms = functional.binary_cross_entropy_with_logits(student, smoothed, reduction="none")
        else:
            terms = functional.mse_loss(student, target, reduction="none")
        return (terms * known).sum() / known.sum().clamp(min=1)
    total = functional.cross_entropy(
        student, labels, ignore_index=UNLABELLED, reduction="sum", label_smoothing=objective.label_smoothing
    )
    return total / (labels != UNLABELLED).sum().clamp(min=1)
