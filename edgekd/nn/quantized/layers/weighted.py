"""Layers with weights: convolution and matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from edgekd.nn.quantized.layers.base import QuantizedLayer, Scales
from edgekd.nn.quantized.multipliers import alike_weight_scale
from edgekd.nn.quantized.network import Array
from edgekd.nn.quantized.quantizer import (
    WEIGHT_MAX,
    bias_steps,
    quantize_bias,
    quantize_weight,
    straight_through,
    weight_scale,
)
from edgekd.nn.quantized.scheme import SchemeSpec
from edgekd.nn.quantized.weight_steps import LearnedWeightStep


class WeightedLayer(QuantizedLayer):
    """A layer with a weight (out, ...) and a bias (out,), stored as `scheme` says.

    `bias_shift` (out,) is what bias correction added to the bias for the sake of rounding.
    """

    bias_shift: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, scheme: SchemeSpec, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.weight = nn.Parameter(weight.detach().clone())
        # A bias costs nothing and lets training correct the mean shift that rounding causes.
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias.detach().clone())
        self.register_buffer("bias_shift", torch.zeros(len(weight)))
        self.scheme = scheme
        self.weight_step: LearnedWeightStep | None = None

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The convolution or product; in inference of whole steps, as the runtimes sum them, so without any error."""
        (values,), input_scale = inputs, scales.inputs[0]
        if self.training or not self._sums_integers(scales):
            return self.product(values, *self.fake_quantized(scales))
        assert input_scale is not None
        scale = self.weight_scale(scales)
        steps = torch.round(quantize_weight(self.weight, scale) / per_channel(scale, self.weight))
        unit = scale * input_scale
        sums = self.product(torch.round(values / input_scale), steps, bias_steps(self.bias, unit))
        return sums * unit.reshape(1, -1, *[1] * (sums.dim() - 2))

    def product(self, values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The layer's operator with this weight and bias."""
        raise NotImplementedError

    def _sums_integers(self, scales: Scales) -> bool:
        """Whether input, weight, bias and output are int8 or int32, with sums that float32 holds as they are."""
        integers = self.scheme.weights == "int8" and self.scheme.integer_bias and self.scheme.activation_bits == 8
        return integers and scales.inputs[0] is not None and scales.output is not None

    def weight_scale(self, scales: Scales) -> Tensor:
        """One scale per output channel, (out,), at which all runtimes round its sums alike (see `multipliers`)."""
        share = None if self.weight_step is None else self.weight_step.share()
        scale = weight_scale(self.weight, self.bias, scales.inputs[0], share)
        if not self._sums_integers(scales):
            return scale
        assert scales.inputs[0] is not None and scales.output is not None
        return alike_weight_scale(scale, scales.inputs[0], scales.output)

    def fake_quantized(self, scales: Scales) -> tuple[Tensor, Tensor]:
        """Weight and bias on their grids; the bias stays float where the scheme or a float input wants it."""
        if self.scheme.weights == "float32":
            return self.weight, self.bias
        if self.scheme.weights == "float16":
            return _half(self.weight), _half(self.bias)
        scale, input_scale = self.weight_scale(scales), scales.inputs[0]
        if self.weight_step is None:
            weight = quantize_weight(self.weight, scale)
        else:
            weight = self.weight_step.round(self.weight, scale)
        if input_scale is None or not self.scheme.integer_bias:
            return weight, self.bias
        return weight, quantize_bias(self.bias, scale * input_scale)

    @torch.no_grad()
    def shift_bias(self, shift: Tensor) -> None:
        """Correct the bias by `shift` (out,)."""
        self.bias.add_(shift)
        self.bias_shift.add_(shift)

    @torch.no_grad()
    def drop_correction(self) -> None:
        """Take back what bias correction added: nothing is rounded here any more."""
        self.bias.sub_(self.bias_shift)
        self.bias_shift.zero_()

    @torch.no_grad()
    def clip_weight(self) -> None:
        """Make an ordinary weight of one with a learned step: clipped, its largest magnitude says the step."""
        assert self.weight_step is not None
        largest = WEIGHT_MAX * weight_scale(self.weight, None, None, self.weight_step.share())
        bound = per_channel(largest, self.weight)
        self.weight.copy_(torch.maximum(torch.minimum(self.weight, bound), -bound))
        self.weight_step = None

    def describe(self, scales: Scales) -> dict[str, Any]:
        """The layer with its weight and bias: int8 with scales and int32 where quantized, else float32."""
        return {**super().describe(scales), **self._constants(scales)}

    def _constants(self, scales: Scales) -> dict[str, Array]:
        weight, bias, input_scale = self.weight.detach(), self.bias.detach(), scales.inputs[0]
        if self.scheme.weights != "int8":
            kind = np.dtype(self.scheme.weights)
            return {"weight": weight.cpu().numpy().astype(kind), "bias": bias.cpu().numpy().astype(kind)}
        scale = self.weight_scale(scales)
        steps = torch.round(quantize_weight(weight, scale) / per_channel(scale, weight)).to(torch.int8)
        stored = bias
        if input_scale is not None and self.scheme.integer_bias:
            stored = bias_steps(bias, scale * input_scale).to(
                torch.int64 if self.scheme.activation_bits == 16 else torch.int32
            )
        return {
            "weight": steps.cpu().numpy(),
            "weight_scale": scale.cpu().numpy(),
            "bias": stored.cpu().numpy().copy(),
        }


def per_channel(scale: Tensor, weight: Tensor) -> Tensor:
    """A scale (out,) that broadcasts over its weight (out, ...)."""
    return scale.reshape(-1, *[1] * (weight.dim() - 1))


def _half(values: Tensor) -> Tensor:
    return straight_through(values, values.half().float())


class QuantizedConv(WeightedLayer):
    """Two-dimensional convolution, (N, C, H, W) to (N, C', H', W').

    Attributes: `stride` and `dilation` (height, width), `padding` (top, bottom, left, right), `groups`.
    """

    kind = "conv"

    def product(self, values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The convolution."""
        top, bottom, left, right = self.attributes["padding"]
        if (top, left) != (bottom, right):
            values = F.pad(values, (left, right, top, bottom))
            top = left = 0
        return F.conv2d(
            values,
            weight,
            bias,
            self.attributes["stride"],
            (top, left),
            self.attributes["dilation"],
            self.attributes["groups"],
        )


class QuantizedLinear(WeightedLayer):
    """Fully connected layer, (N, in) to (N, out)."""

    kind = "linear"

    def product(self, values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The matrix product."""
        return F.linear(values, weight, bias)
