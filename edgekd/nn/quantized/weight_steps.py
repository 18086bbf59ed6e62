"""The learned step of a weight: the gradient of LSQ for one step per output channel (Esser et al. 2020).

It is learned as the logarithm of its share of the step that the largest magnitude asks for, and never exceeds that, so
that a clipped weight can store it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from edgekd.nn.quantized.quantizer import WEIGHT_MAX


def gradient_scale(elements: int, highest: int) -> float:
    """LSQ's 1 / sqrt(N Q_p) (section 2.2): `elements` N of one example or weight, `highest` the largest level Q_p."""
    return 1.0 / math.sqrt(elements * highest)


class _LearnedWeightRound(torch.autograd.Function):
    """A weight (out, ...) on the grid of one step per channel (out,), with LSQ's gradient for the steps."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, step: Tensor) -> Tensor:
        per_channel = step.reshape(-1, *[1] * (weight.dim() - 1))
        exact = weight / per_channel
        level = torch.round(exact).clamp(-WEIGHT_MAX, WEIGHT_MAX)
        ctx.save_for_backward(exact, level)
        return level * per_channel

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        exact, level = ctx.saved_tensors
        inside = exact.abs().round() <= WEIGHT_MAX
        slope = torch.where(inside, level - exact, level)
        factor = gradient_scale(exact.numel(), WEIGHT_MAX)
        return gradient * inside, (gradient * slope).flatten(1).sum(1) * factor


class LearnedWeightStep(nn.Module):
    """How much of a weight's range its steps span, a parameter per output channel."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.log_step = nn.Parameter(torch.zeros(len(weight), device=weight.device))

    def share(self) -> Tensor:
        """The step over that of the largest magnitude, (out,), at most 1."""
        return torch.exp(self.log_step.clamp(max=0.0))

    def round(self, weight: Tensor, scale: Tensor) -> Tensor:
        """The weight (out, ...) on steps of `scale` (out,), which may be a little off what was learned."""
        share = self.share()
        rounded: Tensor = _LearnedWeightRound.apply(weight, scale * (share / share.detach()))  # type: ignore[no-untyped-call]
        return rounded
