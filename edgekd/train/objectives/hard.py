"""Learning from labels."""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor

from edgekd.records import Objective
from edgekd.train.objectives.signals import Signals


def hard(signals: Signals, objective: Objective) -> Tensor:
    """Cross-entropy with the labels: mean over the batch of -log softmax(s)[y], s of shape (B, K), y of shape (B,)."""
    return functional.cross_entropy(signals.student_logits, signals.labels)
