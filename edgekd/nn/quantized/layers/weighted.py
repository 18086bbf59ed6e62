"""Layers with weights: convolution and matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from edgekd.nn.quantized.layers.base import QuantizedLayer, Scales
from edgekd.nn.quantized.network import Array
from edgekd.nn.quantized.quantizer import bias_steps, quantize_bias, quantize_weight, straight_through, weight_scale
from edgekd.nn.quantized.scheme import SchemeSpec


class WeightedLayer(QuantizedLayer):
    """A layer with a weight (out, ...) and a bias (out,), stored as `scheme` says."""

    def __init__(self, weight: Tensor, bias: Tensor | None, scheme: SchemeSpec, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.weight = nn.Parameter(weight.detach().clone())
        # A bias costs nothing and lets training correct the mean shift that rounding causes.
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias.detach().clone())
        self.scheme = scheme

    def fake_quantized(self, input_scale: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weight and bias on their grids; the bias stays float where the scheme or a float input wants it."""
        if self.scheme.weights == "float32":
            return self.weight, self.bias
        if self.scheme.weights == "float16":
            return _half(self.weight), _half(self.bias)
        scale = weight_scale(self.weight, self.bias, input_scale)
        weight = quantize_weight(self.weight, scale)
        if input_scale is None or not self.scheme.integer_bias:
            return weight, self.bias
        return weight, quantize_bias(self.bias, scale * input_scale)

    def describe(self, scales: Scales) -> dict[str, Any]:
        """The layer with its weight and bias: int8 with scales and int32 where quantized, else float32."""
        return {**super().describe(scales), **self._constants(scales)}

    def _constants(self, scales: Scales) -> dict[str, Array]:
        weight, bias = self.weight.detach(), self.bias.detach()
        if self.scheme.weights != "int8":
            kind = np.dtype(self.scheme.weights)
            return {"weight": weight.cpu().numpy().astype(kind), "bias": bias.cpu().numpy().astype(kind)}
        scale = weight_scale(weight, bias, scales[0])
        per_channel = scale.reshape(-1, *[1] * (weight.dim() - 1))
        steps = torch.round(quantize_weight(weight, scale) / per_channel).to(torch.int8)
        stored = bias
        if scales[0] is not None and self.scheme.integer_bias:
            stored = bias_steps(bias, scale * scales[0]).to(
                torch.int64 if self.scheme.activation_bits == 16 else torch.int32
            )
        return {
            "weight": steps.cpu().numpy(),
            "weight_scale": scale.cpu().numpy(),
            "bias": stored.cpu().numpy().copy(),
        }


def _half(values: Tensor) -> Tensor:
    return straight_through(values, values.half().float())


class QuantizedConv(WeightedLayer):
    """Two-dimensional convolution, (N, C, H, W) to (N, C', H', W').

    Attributes: `stride` and `dilation` (height, width), `padding` (top, bottom, left, right), `groups`.
    """

    kind = "conv"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The convolution."""
        (values,) = inputs
        weight, bias = self.fake_quantized(scales[0])
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

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The matrix product."""
        weight, bias = self.fake_quantized(scales[0])
        return F.linear(inputs[0], weight, bias)
