"""What each ATen call means: one rule turns one call into an operation, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import fx

from edgekd.nn.quantized.trace import Call, Operation, place_of, shape_of

Rule = Callable[[Call], Operation]
ListRule = Callable[[Call, fx.Node, int], Operation]
Sides = tuple[int, int, int, int]


def _pair(value: Any, default: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """(height, width) of a number, a pair, or a signal's single value, whose height is `default`'s."""
    values = list(value) if isinstance(value, (list, tuple)) else [value, value]
    return (default[0], int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


def _convolution(call: Call) -> Operation:
    parameters = call.constants("weight", "bias")
    weight = parameters["weight"]
    if weight.dim() == 3:
        weight = parameters["weight"] = weight.unsqueeze(2)
    if weight.dim() != 4:
        raise call.error("only one- and two-dimensional convolutions are supported")
    dilation, padding = _pair(call["dilation"]), call["padding"]
    if padding == "same":
        totals = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
        sides = (totals[0] // 2, totals[0] - totals[0] // 2, totals[1] // 2, totals[1] - totals[1] // 2)
    else:
        height, width = (0, 0) if padding == "valid" else _pair(padding, (0, 0))
        sides = (height, height, width, width)
    attributes = {
        "stride": _pair(call["stride"]),
        "padding": sides,
        "dilation": dilation,
        "groups": int(call["groups"]),
    }
    return call.operation("conv", "input", parameters=parameters, attributes=attributes)


def _linear(call: Call) -> Operation:
    if call.rank("input") != 2:
        raise call.error("only linear layers over (N, features) are supported so far")
    return call.operation("linear", "input", parameters=call.constants("weight", "bias"))


def _batch_norm(call: Call) -> Operation:
    parameters = call.constants("weight", "bias", "running_mean", "running_var")
    if "running_mean" not in parameters:
        raise call.error("no running statistics, so it cannot be folded")
    return call.operation("batch_norm", "input", parameters=parameters, attributes={"eps": float(call["eps"])})


def _arithmetic(kind: str) -> Rule:
    def rule(call: Call) -> Operation:
        if kind == "add" and call["alpha"] != 1:
            raise call.error(f"alpha must be 1, but is {call['alpha']}")
        operation = call.operation(kind, "self", "other")
        shapes = [call.shape("self"), call.shape("other")]
        if len(shapes[0]) != len(shapes[1]):
            raise call.error(f"the shapes {shapes[0]} and {shapes[1]} differ in rank")
        return operation

    return rule


def _clamp(call: Call, low: Any, high: Any) -> Operation:
    kinds = {(0.0, 6.0): "relu6", (0.0, 1.0): "relu1", (0.0, None): "relu"}
    limits = (None if low is None else float(low), None if high is None else float(high))
    if limits not in kinds:
        raise call.error(f"only the limits 0 and 6, 0 and 1, or 0 alone are supported, not {limits}")
    return call.operation(kinds[limits], call.first())


def _hardtanh(call: Call) -> Operation:
    return _clamp(call, call["min_val"], call["max_val"])


def _plain_clamp(call: Call) -> Operation:
    return _clamp(call, call["min"], call["max"])


def _leaky_relu(call: Call) -> Operation:
    return call.operation("leaky_relu", "self", attributes={"slope": float(call["negative_slope"])})


def _softmax(call: Call) -> Operation:
    if call.rank("self") != 2 or call["dim"] % 2 != 1:
        raise call.error("only a softmax over the classes of (N, classes) is supported")
    return call.operation("softmax", "self")


def _mean(call: Call) -> Operation:
    rank = call.rank("self")
    axes = sorted(axis % rank for axis in call["dim"] or range(rank))
    if axes != list(range(2, rank)) or rank < 3:
        raise call.error(f"only the mean over height and width is supported, not over {axes}")
    return call.operation("global_average_pool", "self", attributes={"keepdim": bool(call["keepdim"])})


def _adaptive_average_pool(call: Call) -> Operation:
    wanted, (_, _, height, width) = _pair(call["output_size"]), call.shape("self")
    if wanted == (1, 1):
        return call.operation("global_average_pool", "self", attributes={"keepdim": True})
    if height % wanted[0] or width % wanted[1]:
        raise call.error(f"output size {wanted} must divide the input's {(height, width)}")
    kernel = (height // wanted[0], width // wanted[1])
    channels = shape_of(call.node)[1]
    attributes = {"kernel": kernel, "stride": kernel, "padding": (0, 0, 0, 0), "channels": channels}
    return call.operation("average_pool", "self", attributes=attributes)


def _window(call: Call) -> dict[str, Any]:
    """Kernel, stride and padding of a pool; the padding reaches as far as `ceil_mode` makes windows reach."""
    kernel = _pair(call["kernel_size"])
    stride = _pair(call["stride"]) if call["stride"] else kernel
    before = _pair(call["padding"], (0, 0))
    inputs, outputs = call.shape("self"), shape_of(call.node)
    after = [
        max((outputs[2 + axis] - 1) * stride[axis] + kernel[axis] - inputs[2 + axis] - before[axis], before[axis])
        if call["ceil_mode"]
        else before[axis]
        for axis in (0, 1)
    ]
    return {"kernel": kernel, "stride": stride, "padding": (before[0], after[0], before[1], after[1])}


def _max_pool(call: Call) -> Operation:
    if set(_pair(call["dilation"])) != {1}:
        raise call.error("a dilated pool is not supported")
    return call.operation("max_pool", "self", attributes=_window(call))


def _average_pool(call: Call) -> Operation:
    attributes = {**_window(call), "channels": shape_of(call.node)[1]}
    if any(attributes["padding"]) and (not call["count_include_pad"] or call["ceil_mode"]):
        raise call.error("padding that is not counted in the mean is not supported")
    if "divisor_override" in call._values and call["divisor_override"] is not None:
        raise call.error("divisor_override is not supported")
    return call.operation("average_pool", "self", attributes=attributes)


def _pad(call: Call) -> Operation:
    amounts = [int(amount) for amount in call["pad"]]
    if call["value"] not in (0, 0.0, None) or len(amounts) > 4:
        raise call.error("only padding of height and width with zeros is supported")
    left, right, top, bottom = (*amounts, 0, 0)[:4]
    return call.operation("pad", "self", attributes={"padding": (top, bottom, left, right)})


def _upsample(call: Call) -> Operation:
    inputs, outputs = call.shape(call.first()), shape_of(call.node)
    factor = (outputs[2] // inputs[2], outputs[3] // inputs[3])
    if (factor[0] * inputs[2], factor[1] * inputs[3]) != outputs[2:]:
        raise call.error(f"only whole factors are supported, not {inputs[2:]} to {outputs[2:]}")
    return call.operation("upsample", call.first(), attributes={"factor": factor})


def _reshape(call: Call) -> Operation:
    operation = call.operation("reshape", call.first())
    return replace(operation, attributes={"shape": operation.shape[1:]})


def _transpose(call: Call) -> Operation:
    rank = call.rank("self")
    axes = list(range(rank))
    first, second = call["dim0"] % rank, call["dim1"] % rank
    axes[first], axes[second] = axes[second], axes[first]
    return call.operation("transpose", "self", attributes={"axes": tuple(axes)})


def _permute(call: Call) -> Operation:
    rank = call.rank("self")
    return call.operation("transpose", "self", attributes={"axes": tuple(axis % rank for axis in call["dims"])})


def _concat(call: Call) -> Operation:
    rank = len(call["tensors"][0].meta["val"].shape)
    if call["dim"] % rank != 1:
        raise call.error(f"only joining channels (dimension 1) is supported, not dimension {call['dim']}")
    return call.operation("concat", "tensors", attributes={"axis": 1})


def _slice(call: Call) -> Operation:
    rank, size = call.rank("self"), call["self"].meta["val"].shape
    if call["dim"] % rank == 0 and call["start"] in (0, None):
        return call.operation("identity", "self")
    if call["dim"] % rank != 1 or call["step"] != 1:
        raise call.error("only slices of channels (dimension 1) are supported")
    start, end, _ = slice(call["start"], call["end"]).indices(int(size[1]))
    return call.operation("slice", "self", attributes={"start": start, "end": end})


def _split(call: Call, picked: fx.Node, index: int) -> Operation:
    """One part of a split or chunk along the channels."""
    if call["dim"] % call.rank("self") != 1:
        raise call.error("only splits of channels (dimension 1) are supported")
    sizes = [int(part.shape[1]) for part in call.node.meta["val"]]
    attributes = {"start": sum(sizes[:index]), "end": sum(sizes[: index + 1])}
    source = call["self"].name
    return Operation(picked.name, "slice", place_of(call.node), (source,), shape_of(picked), attributes=attributes)


def _named(kind: str) -> Rule:
    return lambda call: call.operation(kind, call.first())


_BY_NAME: dict[str, Rule] = {
    **dict.fromkeys(("conv1d.default", "conv1d.padding", "conv2d.default", "conv2d.padding"), _convolution),
    "linear.default": _linear,
    "batch_norm.default": _batch_norm,
    "add.Tensor": _arithmetic("add"),
    "mul.Tensor": _arithmetic("mul"),
    "hardtanh.default": _hardtanh,
    "clamp.default": _plain_clamp,
    "leaky_relu.default": _leaky_relu,
    "softmax.int": _softmax,
    **{f"{kind}.default": _named(kind) for kind in ("relu", "relu6", "sigmoid", "silu", "hardswish", "hardsigmoid")},
    "mean.dim": _mean,
    **dict.fromkeys(("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default"), _adaptive_average_pool),
    **dict.fromkeys(("max_pool1d.default", "max_pool2d.default"), _max_pool),
    **dict.fromkeys(("avg_pool1d.default", "avg_pool2d.default"), _average_pool),
    **dict.fromkeys(("constant_pad_nd.default", "pad.default"), _pad),
    **{f"upsample_nearest{rank}d.{form}": _upsample for rank in (1, 2) for form in ("default", "vec")},
    **dict.fromkeys(
        ("flatten.using_ints", "unflatten.int", "view.default", "reshape.default", "unsqueeze.default"), _reshape
    ),
    **dict.fromkeys(("squeeze.default", "squeeze.dim", "squeeze.dims"), _reshape),
    "transpose.int": _transpose,
    "permute.default": _permute,
    "cat.default": _concat,
    "concat.default": _concat,
    "slice.Tensor": _slice,
    **{
        f"{name}.default": _named("identity")
        for name in (
            "dropout",
            "feature_dropout",
            "alpha_dropout",
            "contiguous",
            "clone",
            "alias",
            "detach",
            "identity",
        )
    },
}
_IN_PLACE = {name.replace(".", "_.", 1): rule for name, rule in _BY_NAME.items()}
RULES: dict[str, Rule] = {f"aten.{name}": rule for name, rule in {**_BY_NAME, **_IN_PLACE}.items()}
"""ATen calls that are understood, in place or not. Inference mode is traced, where dropout does nothing."""

LIST_RULES: dict[str, ListRule] = {
    f"aten.{name}": _split for name in ("split.Tensor", "split.sizes", "split_with_sizes.default", "chunk.default")
}
"""Calls that give a list, of which each part is picked by an operation of its own."""
