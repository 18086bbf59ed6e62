"""Activations that are operators of their own. ReLU and ReLU6 are not: saturation makes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from edgekd.nn.quantized.layers.base import QuantizedLayer, Scales
from edgekd.nn.quantized.network import Grid

UNIT_GRID = Grid(1.0 / 256.0, -128)
"""The only output grid of TFLite's LOGISTIC and SOFTMAX."""
TANH_GRID = Grid(1.0 / 128.0, 0)
"""The only output grid of TFLite's TANH."""


class HardSwish(QuantizedLayer):
    """x * clip(x + 3, 0, 6) / 6, in float files only: int8 files multiply by a gate."""

    kind = "hardswish"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The activation."""
        return F.hardswish(inputs[0])


class LeakyRelu(QuantizedLayer):
    """x where positive, `slope` times x elsewhere.

    The slope that is computed with is a buffer: it is set to what XNNPACK's kernel can hold (`ties.leaky_steps`).
    """

    kind = "leaky_relu"
    slope: Tensor

    def __init__(self, slope: float, **attributes: Any) -> None:
        super().__init__(slope=slope, **attributes)
        self.register_buffer("slope", torch.tensor(slope, dtype=torch.float64))

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The activation."""
        return F.leaky_relu(inputs[0], float(self.slope))

    def describe(self, scales: Scales) -> dict[str, Any]:
        """The layer with the slope that it computes with."""
        return {"kind": self.kind, "attributes": {"slope": float(self.slope)}}


class Sigmoid(QuantizedLayer):
    """1 / (1 + exp(-x))."""

    kind = "sigmoid"
    fixed_grid = UNIT_GRID

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The activation."""
        return torch.sigmoid(inputs[0])


class Tanh(QuantizedLayer):
    """The hyperbolic tangent."""

    kind = "tanh"
    fixed_grid = TANH_GRID

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The activation."""
        return torch.tanh(inputs[0])


class Gelu(QuantizedLayer):
    """x times the normal distribution function of x, `approximate` by a tanh or not ("none")."""

    kind = "gelu"
    in_float_only = True

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The activation."""
        return F.gelu(inputs[0], approximate=self.attributes["approximate"])


class Softmax(QuantizedLayer):
    """Softmax over the classes, (N, classes)."""

    kind = "softmax"
    fixed_grid = UNIT_GRID

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The probabilities."""
        return torch.softmax(inputs[0], 1)
