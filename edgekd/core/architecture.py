"""What a student is made of, as plain data: the one declaration behind the operator list and the torch module.

A student is a chain of blocks of convolutions, some with a residual addition, then global average pooling and
one dense layer. Signals are images of height 1, because TFLite has no one-dimensional convolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from edgekd.core.operators import Operator, OperatorKind, OperatorList

Activation = Literal["relu", "relu6", "none"]
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution with its folded batch norm and activation. `kernel` and `stride` are (height, width).

    It is padded with zeros so that an output is its input's size over the stride, rounded up, with the odd zero at
    the end: the padding TFLite calls SAME and runs without an operator of its own.
    """

    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    activation: Activation

    @property
    def kind(self) -> OperatorKind:
        """The operator kind that runtimes treat apart: depthwise, pointwise, or any other convolution."""
        if self.groups == self.in_channels and self.groups > 1:
            return "depthwise"
        return "pointwise" if self.kernel == (1, 1) and self.groups == 1 else "conv"

    @property
    def weights(self) -> int:
        """How many, without biases."""
        return self.out_channels * (self.in_channels // self.groups) * self.kernel[0] * self.kernel[1]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the convolution."""
        return math.ceil(height / self.stride[0]), math.ceil(width / self.stride[1])

    def padding(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Zeros at the top, bottom, left and right of an input of that height and width."""
        top, bottom = _same_padding(height, self.kernel[0], self.stride[0])
        left, right = _same_padding(width, self.kernel[1], self.stride[1])
        return top, bottom, left, right


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True, slots=True)
class Block:
    """Convolutions in a row; `residual` adds the block's input to its output."""

    convolutions: tuple[Convolution, ...]
    residual: bool = False


@dataclass(frozen=True, slots=True)
class Architecture:
    """A student network. `input_shape` is (channels, height, width) of one input."""

    input_shape: Shape
    blocks: tuple[Block, ...]
    outputs: int

    @property
    def features(self) -> int:
        """Channels that reach the dense layer."""
        return self.blocks[-1].convolutions[-1].out_channels


@dataclass(frozen=True, slots=True)
class TracedArchitecture(Architecture):
    """A student that a user's own code builds. Its operators were read from its graph; `build` gives the torch module.

    It has no `blocks`. `float_operators` have no int8 form, by place in the module and kind; `float_share` is their
    share of the multiply-accumulates.
    """

    operators: OperatorList
    build: Callable[[], Any]
    float_operators: tuple[str, ...] = ()
    float_share: float = 0.0


def operator_list(architecture: Architecture) -> OperatorList:
    """The operators of one inference at batch 1, batch norms and activations fused into their convolutions."""
    if isinstance(architecture, TracedArchitecture):
        return architecture.operators
    channels, height, width = architecture.input_shape
    tensors = {"input": channels * height * width}
    operators: list[Operator] = []
    current = "input"

    for index, block in enumerate(architecture.blocks):
        entry = current
        for position, one in enumerate(block.convolutions):
            height, width = one.output_size(height, width)
            name, weights, positions = f"blocks.{index}.{position}", one.weights, height * width
            macs, taps = weights * positions, one.kernel[0] * one.kernel[1]
            operators.append(Operator(name, one.kind, macs, weights, one.out_channels, (current,), name, taps))
            tensors[name] = one.out_channels * positions
            current = name
        if block.residual:
            name = f"blocks.{index}.add"
            operators.append(Operator(name, "add", 0, 0, 0, (entry, current), name))
            tensors[name] = tensors[current]
            current = name
    weights = architecture.features * architecture.outputs
    operators.append(Operator("pool", "pool", 0, 0, 0, (current,), "pool"))
    operators.append(Operator("logits", "dense", weights, weights, architecture.outputs, ("pool",), "logits"))
    tensors["pool"], tensors["logits"] = architecture.features, architecture.outputs
    return OperatorList(tuple(operators), tensors, ("input",), ("logits",))
