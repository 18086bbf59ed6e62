"""The network as plain data: what a file will hold, before any format. Written by `nn`, read by `convert`; no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from numpy.typing import NDArray

from edgekd.records import Scheme

Activation = Literal["none", "relu", "relu6", "relu1"]
CEILINGS: dict[str, float] = {"relu6": 6.0, "relu1": 1.0}
"""Where an activation clips above; all but `none` clip below at 0."""
Array = NDArray[Any]
BORDERS = ("quantize", "dequantize")
"""Kinds of layers that only move values between integers and floats."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The values an integer tensor can stand for: `scale * (q - zero_point)`, q of `bits` bits, signed."""

    scale: float
    zero_point: int
    bits: Literal[8, 16] = 8


@dataclass(frozen=True, slots=True)
class Tensor:
    """An activation of one inference. `shape` is torch's (batch 1, channels before height and width)."""

    name: str
    shape: tuple[int, ...]
    grid: Grid | None = None
    integer: bool = False
    """Whether it holds int32 numbers, such as the ids that an embedding reads."""

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator with its constants. `name` is its place in the user's module.

    `weight` is (out, in / groups, height, width) for `conv`, (out, in) for `linear`; int8 where `weight_scale`
    (one value per output channel) is given, float32 otherwise. `bias` is int32 on the grid input scale times
    weight scale where the activations are quantized, float32 otherwise.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    activation: Activation = "none"
    weight: Array | None = None
    weight_scale: Array | None = None
    bias: Array | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Network:
    """Layers in execution order, from one input to one output."""

    scheme: Scheme
    tensors: dict[str, Tensor]
    layers: tuple[Layer, ...]
    input: str
    output: str

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum(
            constant.size for layer in self.layers for constant in (layer.weight, layer.bias) if constant is not None
        )

    @property
    def kept_in_float(self) -> tuple[str, ...]:
        """Names of the layers that compute in float in a network of integers; none where all of it is float."""
        if not self.scheme.endswith("_mixed"):
            return ()
        return tuple(
            layer.name for layer in self.layers if layer.kind not in BORDERS and self.tensors[layer.output].grid is None
        )

    def until(self, tensor: str) -> Network:
        """The network cut off behind `tensor`, which becomes its output."""
        position = next(index for index, layer in enumerate(self.layers) if layer.output == tensor)
        return replace(self, layers=self.layers[: position + 1], output=tensor)

    def output_scale(self) -> float:
        """Step of the output's grid, the LSB of parity figures; 1 where the output is float.

        An output that is only dequantized has the step of what it is made from.
        """
        source = next((layer for layer in self.layers if layer.output == self.output), None)
        name = source.inputs[0] if source is not None and source.kind == "dequantize" else self.output
        grid = self.tensors[name].grid
        return grid.scale if grid else 1.0
