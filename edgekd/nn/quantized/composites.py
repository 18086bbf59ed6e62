"""Rewrites of operators that no runtime has as one, or not in integers, into several that all have."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from edgekd.nn.quantized.operations import Operation, Trace


def fuse_attention(trace: Trace) -> Trace:
    """Product of queries and keys, scaling, softmax, product with values: one operation."""
    by_name = {operation.name: operation for operation in trace.operations}

    def fused(operation: Operation) -> Operation:
        if operation.kind != "weighted":
            return operation
        weights = by_name.get(operation.inputs[0])
        scores = _scores(by_name, weights.inputs[0]) if weights and weights.kind == "softmax_of_scores" else None
        if scores is None:
            return operation
        inputs = (*scores.inputs, operation.inputs[1])
        return replace(operation, kind="attention", inputs=inputs, attributes=scores.attributes)

    return _without_unread(replace(trace, operations=tuple(fused(operation) for operation in trace.operations)))


def _scores(by_name: dict[str, Operation], name: str) -> Operation | None:
    """The scores behind a name, with the numbers that they are multiplied by."""
    operation = by_name.get(name)
    if operation is None or operation.kind == "scores":
        return operation
    if operation.kind != "mul":
        return None
    factors = [by_name[source] for source in operation.inputs if by_name[source].kind == "constant"]
    rest = [source for source in operation.inputs if by_name[source].kind != "constant"]
    scores = _scores(by_name, rest[0]) if len(rest) == 1 else None
    if scores is None or factors[0].parameters["value"].numel() != 1:
        return None
    scale = scores.attributes["scale"] * float(factors[0].parameters["value"])
    return replace(scores, attributes={**scores.attributes, "scale": scale})


def _without_unread(trace: Trace) -> Trace:
    operations = trace.operations
    while True:
        read = {name for operation in operations for name in operation.inputs} | {trace.output}
        kept = tuple(operation for operation in operations if operation.name in read)
        if len(kept) == len(operations):
            return replace(trace, operations=kept)
        operations = kept


def expand_composites(trace: Trace) -> Trace:
    """PReLU, transposed convolutions and pixel shuffles in operators that have integer kernels everywhere."""
    expansions = {"prelu": _prelu, "transposed_conv": _transposed, "pixel_shuffle": _pixel_shuffle}
    operations: list[Operation] = []
    shapes = {operation.name: operation.shape for operation in trace.operations} | {trace.input: trace.input_shape}
    for operation in trace.operations:
        expand = expansions.get(operation.kind)
        operations += [operation] if expand is None else expand(operation, shapes[operation.inputs[0]])
    return replace(trace, operations=tuple(operations))


def _scaled(operation: Operation, suffix: str, factor: Tensor, **fields: object) -> Operation:
    """X * factor per channel (C,), as a 1x1 depthwise convolution."""
    return replace(
        operation,
        name=f"{operation.name}_{suffix}",
        kind="conv",
        parameters={"weight": factor.reshape(-1, 1, 1, 1), "bias": torch.zeros_like(factor)},
        attributes={"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": len(factor)},
        **fields,  # type: ignore[arg-type]
    )


def _prelu(operation: Operation, shape: tuple[int, ...]) -> list[Operation]:
    """max(x, 0) + slope min(x, 0): with slopes in [0, 1] as slope x + relu((1 - slope) x), else with a third branch."""
    slope = operation.parameters["slope"].detach()
    if bool(((slope >= 0) & (slope <= 1)).all()):
        parts = [_scaled(operation, "line", slope), _scaled(operation, "positive", 1 - slope, activation="relu")]
    else:
        negative = _scaled(operation, "negative", -torch.ones_like(slope), activation="relu")
        parts = [negative, _scaled(operation, "line", -slope, inputs=(negative.name,))]
        parts.append(_scaled(operation, "positive", torch.ones_like(slope), activation="relu"))
    names = (f"{operation.name}_line", f"{operation.name}_positive")
    return [*parts, replace(operation, kind="add", inputs=names, parameters={}, attributes={})]


def _pixel_shuffle(operation: Operation, shape: tuple[int, ...]) -> list[Operation]:
    """Torch keeps the pixels of a channel together; TFLite keeps the channels of a pixel together."""
    factor = operation.attributes["factor"]
    order = replace(
        operation,
        name=f"{operation.name}_order",
        kind="channel_shuffle",
        shape=shape,
        attributes={"groups": shape[1] // factor**2},
    )
    space = {"factor": (factor, factor)}
    return [order, replace(operation, kind="depth_to_space", inputs=(order.name,), attributes=space)]


def _transposed(operation: Operation, shape: tuple[int, ...]) -> list[Operation]:
    """A convolution whose channels are the pixels of each block of `stride`, then those blocks laid out.

    Output s q + r of an axis sums inputs q + j times weights r + p - s j; a window over all j that any r needs holds
    zeros where r needs less.
    """
    weight = operation.parameters["weight"].detach()
    stride, padding = operation.attributes["stride"], operation.attributes["padding"]
    channels, width = weight.shape[:2]
    offsets = [_window(weight.shape[2 + axis], stride[axis], padding[axis]) for axis in (0, 1)]
    (top, bottom), (left, right) = offsets
    blocks = torch.zeros(*stride, width, channels, bottom - top + 1, right - left + 1)
    for row in range(stride[0]):
        for column in range(stride[1]):
            for down in range(top, bottom + 1):
                for across in range(left, right + 1):
                    source = row + padding[0] - stride[0] * down, column + padding[1] - stride[1] * across
                    if 0 <= source[0] < weight.shape[2] and 0 <= source[1] < weight.shape[3]:
                        blocks[row, column, :, :, down - top, across - left] = weight[:, :, source[0], source[1]].T
    parameters = {"weight": blocks.flatten(0, 2)}
    if "bias" in operation.parameters:
        parameters["bias"] = operation.parameters["bias"].detach().repeat(math.prod(stride))
    convolution = replace(
        operation,
        name=f"{operation.name}_blocks",
        kind="conv",
        shape=(1, math.prod(stride) * width, *shape[2:]),
        parameters=parameters,
        attributes={"stride": (1, 1), "padding": (-top, bottom, -left, right), "dilation": (1, 1), "groups": 1},
    )
    if tuple(stride) == (1, 1):
        return [replace(convolution, name=operation.name)]
    space = {"factor": stride}
    spread = replace(operation, kind="depth_to_space", inputs=(convolution.name,), parameters={}, attributes=space)
    return [convolution, spread]


def _window(kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """The least and the greatest j of `_transposed` along one axis, 0 among them."""
    least = min(math.ceil((phase + padding - kernel + 1) / stride) for phase in range(stride))
    most = max((phase + padding) // stride for phase in range(stride))
    return min(least, 0), max(most, 0)
