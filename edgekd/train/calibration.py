"""How far a model's probabilities can be believed, and making them more believable."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

BINS = 15


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """ECE (Guo et al. 2017, arXiv:1706.04599, equation 3): mean distance of confidence and accuracy, a fraction.

    Args:
        logits: (N, K).
        labels: (N,) of classes; (N, K) of independent labels, each of which counts as a choice between two.
        bins: of equal width over the highest probability.
    """
    if labels.ndim == 2:
        confidence = torch.sigmoid(logits.abs()).flatten()
        right = ((logits > 0) == (labels > 0.5)).flatten().to(confidence)
    else:
        confidence, choice = logits.softmax(1).max(1)
        right = (choice == labels).to(confidence)
    index = (confidence * bins).long().clamp(max=bins - 1)
    sums = torch.zeros(bins, dtype=confidence.dtype).index_add_(0, index, confidence - right)
    return float(sums.abs().sum() / len(confidence))


class Calibrated(nn.Module):
    """A model whose logits are scaled and shifted for each class: (B, K) to (B, K)."""

    def __init__(self, model: nn.Module, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, inputs: Tensor) -> Tensor:
        """Calibrated logits."""
        logits: Tensor = self.model(inputs) * self.scale + self.shift
        return logits


def fit_scaling(logits: Tensor, labels: Tensor, how: Literal["temperature", "vector"]) -> tuple[Tensor, Tensor]:
    """Scale and shift (K,) that minimise the negative log likelihood on a validation split.

    `temperature` is one scale for all classes and no shift (arXiv:1706.04599, section 4.2); `vector` a scale and a
    shift for each (the same section; Platt scaling for more than two classes). Labels as for
    `expected_calibration_error`.
    """
    told = functional.cross_entropy if labels.ndim == 1 else functional.binary_cross_entropy_with_logits
    classes = logits.shape[1]
    log_scale = torch.zeros(1 if how == "temperature" else classes, requires_grad=True)
    shift = torch.zeros(classes, requires_grad=how == "vector")
    free = [log_scale, shift] if how == "vector" else [log_scale]
    optimizer = torch.optim.LBFGS(free, max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = told(logits * log_scale.exp() + shift, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return log_scale.detach().exp().expand(classes).clone(), shift.detach()
