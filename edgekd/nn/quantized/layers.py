"""Fake-quantized layers. Each computes in float on values that lie on integer grids, and describes itself as data.

A layer gets its inputs already on their grids, with the grids' scales; its output is put on a grid by the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from edgekd.nn.quantized.network import Activation, Array
from edgekd.nn.quantized.quantizer import (
    bias_steps,
    quantize_bias,
    quantize_weight,
    straight_through,
    weight_scale,
)

Scales = Sequence[Tensor | None]
_ACTIVATIONS = {"relu": F.relu, "relu6": F.relu6}


class QuantizedLayer(nn.Module):
    """An operator of the network. `weighted` layers have a weight and perhaps a bias to quantize."""

    kind = ""
    shares_grid = False
    """The output lies on the grid of the inputs: the operator moves or averages values and makes none."""

    def __init__(self, activation: Activation = "none", **attributes: Any) -> None:
        super().__init__()
        self.activation = activation
        self.attributes = attributes
        self.saturates = False
        """Set where the output's grid already ends where the activation would clip."""

    def forward(self, *inputs: Tensor, scales: Scales) -> Tensor:
        """The layer's output, before it is put on its grid."""
        outputs = self.compute(inputs, scales)
        if self.activation == "none" or self.saturates:
            return outputs
        return _ACTIVATIONS[self.activation](outputs)

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The operator without its activation."""
        raise NotImplementedError

    def constants(self, scales: Scales) -> dict[str, Array]:
        """Weights and biases as they will be stored: fields of `network.Layer`."""
        return {}


class WeightedLayer(QuantizedLayer):
    """A layer with a weight (out, ...) and a bias (out,). `quantized` false leaves both in float."""

    def __init__(self, weight: Tensor, bias: Tensor | None, quantized: bool, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.weight = nn.Parameter(weight.detach().clone())
        # A bias costs nothing and lets training correct the mean shift that rounding causes.
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias.detach().clone())
        self.quantized = quantized

    def fake_quantized(self, input_scale: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weight and bias on their grids; the bias stays float where the input is not quantized."""
        if not self.quantized:
            return self.weight, self.bias
        scale = weight_scale(self.weight, self.bias, input_scale)
        weight = quantize_weight(self.weight, scale)
        return weight, self.bias if input_scale is None else quantize_bias(self.bias, scale * input_scale)

    def constants(self, scales: Scales) -> dict[str, Array]:
        """Weight and bias as stored: int8 with scales and int32 where quantized, else float32."""
        weight, bias = self.weight.detach(), self.bias.detach()
        if not self.quantized:
            return {"weight": weight.cpu().numpy().copy(), "bias": bias.cpu().numpy().copy()}
        scale = weight_scale(weight, bias, scales[0])
        per_channel = scale.reshape(-1, *[1] * (weight.dim() - 1))
        steps = torch.round(quantize_weight(weight, scale) / per_channel).to(torch.int8)
        stored = bias if scales[0] is None else bias_steps(bias, scale * scales[0]).to(torch.int32)
        return {
            "weight": steps.cpu().numpy(),
            "weight_scale": scale.cpu().numpy(),
            "bias": stored.cpu().numpy().copy(),
        }


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


class QuantizedAdd(QuantizedLayer):
    """Sum of two tensors of one shape."""

    kind = "add"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The sum."""
        return inputs[0] + inputs[1]


class GlobalAveragePool(QuantizedLayer):
    """Mean over height and width, (N, C, H, W) to (N, C) or, with `keepdim`, (N, C, 1, 1)."""

    kind = "global_average_pool"
    shares_grid = True

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The mean, where quantized of whole steps: a mean of 16 steps is often a tie, which float sums would break."""
        keepdim = self.attributes["keepdim"]
        mean = inputs[0].mean((2, 3), keepdim=keepdim)
        if scales[0] is None:
            return mean
        steps = torch.round(inputs[0].detach() / scales[0]).mean((2, 3), keepdim=keepdim)
        return straight_through(mean, torch.round(steps) * scales[0])


class Reshape(QuantizedLayer):
    """Another shape for the same elements in the same order. Attribute `shape` leaves out the batch."""

    kind = "reshape"
    shares_grid = True

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The reshaped tensor."""
        return inputs[0].reshape(len(inputs[0]), *self.attributes["shape"])


LAYERS: dict[str, type[QuantizedLayer]] = {
    layer.kind: layer for layer in (QuantizedConv, QuantizedLinear, QuantizedAdd, GlobalAveragePool, Reshape)
}
"""Every operator that can be quantized, by kind. A new one is a class here, a rule in `trace`, a writer per format."""
