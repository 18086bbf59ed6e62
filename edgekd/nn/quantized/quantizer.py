"""Fake quantization of activations, weights and biases.

The arithmetic is torch's `fake_quantize_*`: q = clamp(round_half_even(x * (1 / scale)) + zero_point), and the
straight-through gradient inside the range (Jacob et al. 2018, arXiv:1712.05877).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.nn.quantized.network import CEILINGS, Activation, Grid

WEIGHT_MAX = 127
_DEAD_RANGE = 1e-6
"""A tensor that stays within this of 0 gets the scale 1: the runtimes refuse multipliers of 256 and more."""
_BIAS_MAX = 2.0**30
"""A bias beyond this many steps would overflow the int32 accumulator; the weight's scale grows until it fits."""
_SMALLEST_CHANNEL = 1e-6
"""Least scale of a channel, as a share of the largest: the runtimes refuse multipliers below 2**-32."""


class ActivationQuantizer(nn.Module):
    """Rounds activations to integers, per tensor, on a range learnt as a moving average of minima and maxima.

    Several tensors may share one quantizer (a pool and its input, the inputs of a concatenation): each is a
    member with its own averages, and the range is their union. `activation` is a nonlinearity that all members
    end in: the range then starts at 0 and ends at its ceiling at most, so that saturation is the nonlinearity,
    unless the grid is `symmetric`, whose zero point is 0.
    """

    minimum: Tensor
    maximum: Tensor
    updates: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        activation: Activation = "none",
        members: int = 1,
        bits: Literal[8, 16] = 8,
        symmetric: bool = False,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        self.bits = bits
        self.symmetric = symmetric
        self.lowest, self.highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.fixed = False
        self.activation = activation
        self.momentum = momentum
        self.observing = True
        self.register_buffer("minimum", torch.zeros(members))
        self.register_buffer("maximum", torch.zeros(members))
        self.register_buffer("updates", torch.zeros(members, dtype=torch.int32))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int32))

    def forward(self, inputs: Tensor, member: int = 0) -> Tensor:
        """The inputs on the grid, same shape. In training, the range follows them until it is frozen."""
        if self.training and self.observing and not self.fixed:
            self.observe(inputs.detach(), member)
        return self.round(inputs)

    def round(self, inputs: Tensor) -> Tensor:
        """The inputs on the grid as it is."""
        return torch.fake_quantize_per_tensor_affine(inputs, self.scale, self.zero_point, self.lowest, self.highest)

    @torch.no_grad()
    def observe(self, inputs: Tensor, member: int = 0) -> None:
        """Move the range towards the inputs'. The first updates average evenly, so that calibration needs few."""
        self.updates[member] += 1
        weight = max(1.0 / float(self.updates[member]), 1.0 - self.momentum)
        for average, extreme in zip((self.minimum, self.maximum), torch.aminmax(inputs), strict=True):
            average[member] += (extreme - average[member]) * weight
        self._set_grid()

    def set_range(self, low: float, high: float) -> None:
        """Span this range, as if every member had been observed to; later updates move it as usual."""
        self.minimum.fill_(low)
        self.maximum.fill_(high)
        self.updates.fill_(round(1 / (1 - self.momentum)))
        self._set_grid()

    def _set_grid(self) -> None:
        # Plain numbers: a score of operations on tensors of one element would cost more than the rounding itself.
        low, high = min(min(self.minimum.tolist()), 0.0), max(max(self.maximum.tolist()), 0.0)
        if self.activation != "none":
            low = 0.0
        high = min(high, CEILINGS.get(self.activation, high))
        if self.symmetric:
            self.scale.fill_(_or_one(max(-low, high)) / self.highest)
            return
        # Sixteen bits, so that the scale times a pool's size has no rounding error, by which onnxruntime breaks ties.
        mantissa, exponent = math.frexp(_or_one(high - low) / (self.highest - self.lowest))
        scale = math.ldexp(math.floor(mantissa * 65536) / 65536, exponent)
        self.scale.fill_(scale)
        # Even, because XNNPACK rounds a mean's ties to even after adding the zero point and onnxruntime before.
        zero_point = 2 * round((self.lowest - low / scale) / 2)
        self.zero_point.fill_(min(max(zero_point, self.lowest), self.highest - 1))

    def fix(self, grid: Grid) -> None:
        """Use this grid whatever the activations are, because the runtimes' kernels know no other."""
        self.fixed = True
        self.scale.fill_(grid.scale)
        self.zero_point.fill_(grid.zero_point)

    @property
    def is_set(self) -> bool:
        """Whether the grid stands for something: it was observed, or is fixed."""
        return self.fixed or bool(self.updates.max() > 0)

    def grid(self) -> Grid:
        """The grid in use."""
        return Grid(float(self.scale), int(self.zero_point), self.bits)


def _or_one(extent: float) -> float:
    return extent if extent > _DEAD_RANGE else 1.0


def straight_through(values: Tensor, exact: Tensor) -> Tensor:
    """`exact` in the forward pass, the gradient of `values` in the backward pass, same shape."""
    return values + (exact - values).detach()


def weight_scale(
    weight: Tensor, bias: Tensor | None, input_scale: Tensor | None, share: Tensor | None = None
) -> Tensor:
    """One scale per output channel, (out,): the largest magnitude, or a learned `share` of it (out,), over 127.

    It is larger only where a channel is (almost) dead, or where its bias would overflow int32.
    """
    weight = weight.detach()
    scale = weight.abs().flatten(1).amax(1) / WEIGHT_MAX
    if share is not None:
        scale = scale * share.detach()
    largest = scale.amax()
    scale = torch.maximum(scale, torch.where(largest > 0, largest * _SMALLEST_CHANNEL, torch.ones_like(largest)))
    if bias is not None and input_scale is not None:
        scale = torch.maximum(scale, bias.detach().abs() / (input_scale * _BIAS_MAX))
    return scale


def quantize_weight(weight: Tensor, scale: Tensor) -> Tensor:
    """The weight on its int8 grid, symmetric per output channel, same shape."""
    zero_point = torch.zeros(len(scale), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -WEIGHT_MAX, WEIGHT_MAX)


def bias_steps(bias: Tensor, scale: Tensor) -> Tensor:
    """The bias in whole steps of `scale` (input scale times weight scale), float32, (out,)."""
    return torch.round(bias / scale)


def quantize_bias(bias: Tensor, scale: Tensor) -> Tensor:
    """The bias on the int32 grid of `scale`, with a straight-through gradient, (out,)."""
    return straight_through(bias, bias_steps(bias, scale) * scale)
