"""Learned step sizes (LSQ+): steps of weights and activations, and offsets of activations, trained with the weights.

Gradients are those of LSQ (Esser et al. 2020, arXiv:1902.08153) and, for offsets, LSQ+ (Bhalgat et al. 2020,
arXiv:2004.09576). The grids in use obey the same rules as observed ones (`ActivationQuantizer`), by rounding what was
learned on to them in every pass.

Two things differ from the papers. A step is learned as the logarithm of its ratio to where it began, and an offset as
a share of the range, because Adam moves every parameter by about the learning rate whatever the gradient's scale. And
a weight's step only shrinks, from the channel's largest magnitude over 127, so that a clipped weight can store it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from edgekd.nn.quantized.layers import WeightedLayer
from edgekd.nn.quantized.model import QuantizedModel
from edgekd.nn.quantized.quantizer import ActivationQuantizer
from edgekd.nn.quantized.weight_steps import LearnedWeightStep, gradient_scale


class _LearnedRound(torch.autograd.Function):
    """Values on a grid, with gradients for the step and for the offset at which the grid begins.

    Inside the grid d/dstep = round(v) - v, v = x / step, and d/doffset = 0; beyond its ends d/dstep is the level there,
    counted from the offset, and d/doffset = 1 (LSQ+, equations 4 and 5).
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, step: Tensor, offset: Tensor | None, quantizer: ActivationQuantizer
    ) -> Tensor:
        rounded = quantizer.round(values)
        ctx.save_for_backward(values, rounded, quantizer.scale.clone(), quantizer.zero_point.clone())
        ctx.ends = (quantizer.lowest, quantizer.highest)
        ctx.origin = None if quantizer.symmetric else quantizer.lowest
        return rounded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        values, rounded, scale, zero_point = ctx.saved_tensors
        lowest, highest = ctx.ends
        origin = 0 if ctx.origin is None else ctx.origin
        exact = values / scale
        level = torch.round(exact) + zero_point
        below, above = level < lowest, level > highest
        outside = below | above
        slope = torch.where(
            below, float(lowest - origin), torch.where(above, float(highest - origin), rounded / scale - exact)
        )
        factor = gradient_scale(values[0].numel(), highest - origin)
        to_step = (gradient * slope).sum() * factor
        to_offset = (gradient * outside).sum() * factor if ctx.needs_input_grad[2] else None
        return gradient * ~outside, to_step, to_offset, None


class LearnedQuantizer(ActivationQuantizer):
    """An activation quantizer whose step, and offset where its grid may begin below 0, are parameters.

    `log_step` is the logarithm of the step over the one it was made with; `shift` moves the lower end, in ranges.
    """

    def __init__(self, observed: ActivationQuantizer) -> None:
        super().__init__(observed.activation, len(observed.minimum), observed.bits, observed.symmetric)
        self.load_state_dict(observed.state_dict())
        self.start, self.zero = float(observed.scale), int(observed.zero_point)
        self.log_step = nn.Parameter(torch.zeros_like(observed.scale))
        moves = not observed.symmetric and observed.activation == "none"
        self.shift = nn.Parameter(torch.zeros_like(observed.scale)) if moves else None

    def forward(self, inputs: Tensor, member: int = 0) -> Tensor:
        """The inputs on the grid, same shape; while it learns, the grid is made anew from the parameters."""
        if not self.observing:
            return self.round(inputs)
        step = self.start * torch.exp(self.log_step)
        low = self.start * (self.lowest - self.zero)
        offset = None
        if self.shift is not None:
            offset = (low + self.shift * self.start * (self.highest - self.lowest)).clamp(max=0.0)
        self._make_grid(step.detach(), step.new_tensor(low) if offset is None else offset.detach())
        learned: Tensor = _LearnedRound.apply(inputs, step, offset, self)  # type: ignore[no-untyped-call]
        return learned

    @torch.no_grad()
    def _make_grid(self, step: Tensor, low: Tensor) -> None:
        if self.symmetric:
            self.minimum.fill_(0.0)
            self.maximum.copy_((step * self.highest).expand_as(self.maximum))
        else:
            self.minimum.copy_(low.expand_as(self.minimum))
            self.maximum.copy_((low + step * (self.highest - self.lowest)).expand_as(self.maximum))
        self._set_grid()

    def settled(self) -> ActivationQuantizer:
        """An ordinary quantizer with the grid in use."""
        members = len(self.minimum)
        plain = ActivationQuantizer(self.activation, members, self.bits, self.symmetric)
        kept = {name: value for name, value in self.state_dict().items() if name in plain.state_dict()}
        plain.load_state_dict(kept)
        plain.observing = False
        return plain.to(self.scale.device)


def learn_steps(model: QuantizedModel) -> None:
    """Make a calibrated model's steps parameters, in place. Its first outputs are those of the calibrated model.

    `model.observe(False)` holds the activations' steps; `settle_steps` makes it an ordinary model again.
    """
    for key, quantizer in list(model.quantizers.items()):
        assert isinstance(quantizer, ActivationQuantizer)
        if not quantizer.fixed:
            model.quantizers[key] = LearnedQuantizer(quantizer).to(quantizer.scale.device)
    for layer in model.layers.values():
        if isinstance(layer, WeightedLayer) and layer.scheme.weights == "int8":
            layer.weight_step = LearnedWeightStep(layer.weight)


def settle_steps(model: QuantizedModel) -> None:
    """Undo `learn_steps`, in place, keeping what was learned: grids as ranges, weight steps as clipped weights."""
    for key, quantizer in list(model.quantizers.items()):
        if isinstance(quantizer, LearnedQuantizer):
            model.quantizers[key] = quantizer.settled()
    for layer in model.layers.values():
        if isinstance(layer, WeightedLayer) and layer.weight_step is not None:
            layer.clip_weight()
