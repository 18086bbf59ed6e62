"""Sums and products of activations, with torch's broadcasting."""

from __future__ import annotations

from torch import Tensor

from edgekd.nn.quantized.layers.base import QuantizedLayer, Scales


class QuantizedAdd(QuantizedLayer):
    """Sum of two tensors."""

    kind = "add"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The sum."""
        return inputs[0] + inputs[1]


class QuantizedMultiply(QuantizedLayer):
    """Product of two tensors, as in a squeeze-and-excitation block."""

    kind = "mul"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The product."""
        return inputs[0] * inputs[1]
