"""What each ATen call means: one rule turns one call into an operation, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import fx

from edgekd.nn.quantized.arithmetic_rules import add, divide, multiply, subtract
from edgekd.nn.quantized.calls import Call, describe, place_of
from edgekd.nn.quantized.operations import Operation
from edgekd.nn.quantized.token_rules import attention, embedding, layer_norm, linear, matrix_product, softmax
from edgekd.nn.quantized.views import View, reshaped, turned

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


def _batch_norm(call: Call) -> Operation:
    parameters = call.constants("weight", "bias", "running_mean", "running_var")
    if "running_mean" not in parameters:
        raise call.error("no running statistics, so it cannot be folded")
    return call.operation("batch_norm", "input", parameters=parameters, attributes={"eps": float(call["eps"])})


def _clamp(call: Call, low: Any, high: Any) -> Operation:
    kinds = {(0.0, 6.0): "relu6", (0.0, 1.0): "relu1", (0.0, None): "relu"}
    limits = (None if low is None else float(low), None if high is None else float(high))
    if limits not in kinds:
        raise call.error(f"only the limits 0 and 6, 0 and 1, or 0 alone are supported, not {limits}")
    return _elementwise(call, kinds[limits])


def _hardtanh(call: Call) -> Operation:
    return _clamp(call, call["min_val"], call["max_val"])


def _plain_clamp(call: Call) -> Operation:
    return _clamp(call, call["min"], call["max"])


def _leaky_relu(call: Call) -> Operation:
    return _elementwise(call, "leaky_relu", slope=float(call["negative_slope"]))


def _prelu(call: Call) -> Operation:
    if call.rank("self") != 4 and call.rank("self") != 3:
        raise call.error("only a PReLU over images or signals is supported")
    slope = call.constants("weight")["weight"]
    channels = call.shape("self")[1]
    return call.operation("prelu", "self", parameters={"slope": slope.expand(channels)})


def _gelu(call: Call) -> Operation:
    return _elementwise(call, "gelu", approximate=str(call["approximate"]))


def _elementwise(call: Call, kind: str, **attributes: Any) -> Operation:
    """An operation on each value by itself, however the tensor is stored."""
    call.result = call.view(call.first())
    return call.made(kind, (call[call.first()].name,), attributes=attributes)


def _mean(call: Call) -> Operation:
    rank, view = call.rank("self"), call.view("self")
    axes = sorted(axis % rank for axis in call["dim"] or range(rank))
    last = axes == list(range(1, rank - 1)) and (view == "last" or rank == 3)
    if rank < 3 or (axes != list(range(2, rank)) and not last):
        raise call.error(f"only the mean over height and width, or over tokens, is supported, not over {axes}")
    name = call.tensor(call["self"], "last" if last else "first")
    call.result = "last" if last and call["keepdim"] else "first"
    return call.made("global_average_pool", (name,), attributes={"keepdim": bool(call["keepdim"])})


def _adaptive_average_pool(call: Call) -> Operation:
    wanted, (_, _, height, width) = _pair(call["output_size"]), call.shape("self")
    if wanted == (1, 1):
        return call.operation("global_average_pool", "self", attributes={"keepdim": True})
    if height % wanted[0] or width % wanted[1]:
        raise call.error(f"output size {wanted} must divide the input's {(height, width)}")
    kernel = (height // wanted[0], width // wanted[1])
    channels = call.output_shape()[1]
    attributes = {"kernel": kernel, "stride": kernel, "padding": (0, 0, 0, 0), "channels": channels}
    return call.operation("average_pool", "self", attributes=attributes)


def _window(call: Call) -> dict[str, Any]:
    """Kernel, stride and padding of a pool; the padding reaches as far as `ceil_mode` makes windows reach."""
    kernel = _pair(call["kernel_size"])
    stride = _pair(call["stride"]) if call["stride"] else kernel
    before = _pair(call["padding"], (0, 0))
    inputs, outputs = call.shape("self"), call.output_shape()
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
    attributes = {**_window(call), "channels": call.output_shape()[1]}
    if any(attributes["padding"]) and call["ceil_mode"]:
        raise call.error("ceil_mode=True, where it makes windows reach over the edge, is not supported in a mean")
    if any(attributes["padding"]) and not call["count_include_pad"]:
        raise call.error("padding that is not counted in the mean (count_include_pad=False) is not supported")
    if "divisor_override" in call.values and call["divisor_override"] is not None:
        raise call.error("divisor_override is not supported")
    return call.operation("average_pool", "self", attributes=attributes)


def _pad(call: Call) -> Operation:
    amounts = [int(amount) for amount in call["pad"]]
    if call["value"] not in (0, 0.0, None) or len(amounts) > 4:
        raise call.error("only padding of height and width with zeros is supported")
    left, right, top, bottom = (*amounts, 0, 0)[:4]
    return call.operation("pad", "self", attributes={"padding": (top, bottom, left, right)})


def _upsample(call: Call) -> Operation:
    inputs, outputs = call.shape(call.first()), call.output_shape()
    factor = (outputs[2] // inputs[2], outputs[3] // inputs[3])
    if (factor[0] * inputs[2], factor[1] * inputs[3]) != outputs[2:]:
        raise call.error(f"only whole factors are supported, not {inputs[2:]} to {outputs[2:]}")
    return call.operation("upsample", call.first(), attributes={"factor": factor})


def _bilinear(call: Call) -> Operation:
    attributes = {"size": call.output_shape()[2:], "align_corners": bool(call["align_corners"])}
    return call.operation("upsample_bilinear", call.first(), attributes=attributes)


def _pixel_shuffle(call: Call) -> Operation:
    return call.operation("pixel_shuffle", "self", attributes={"factor": int(call["upscale_factor"])})


def _transposed_convolution(call: Call) -> Operation:
    parameters = call.constants("weight", "bias")
    stride, padding = _pair(call["stride"]), _pair(call["padding"], (0, 0))
    extra = _pair(call["output_padding"], (0, 0))
    if parameters["weight"].dim() != 4 or call["groups"] != 1 or set(_pair(call["dilation"])) != {1}:
        raise call.error("only a two-dimensional transposed convolution of one group without dilation is supported")
    kernel = tuple(parameters["weight"].shape[2:])
    for axis in (0, 1):
        if kernel[axis] - 2 * padding[axis] + extra[axis] != stride[axis]:
            raise call.error(
                f"its output must be its input times the stride {stride}: kernel {kernel} - 2 padding {padding} + "
                f"output_padding {extra} must be the stride"
            )
    attributes = {"stride": stride, "padding": padding}
    return call.operation("transposed_conv", "input", parameters=parameters, attributes=attributes)


def _reshape(call: Call) -> Operation:
    name = call.first()
    before, after, view = call.own_shape(name), call.own_shape(), call.view(name)
    seen = reshaped(view, before, after)
    if seen is not None:
        call.result = seen
        return call.made("identity", (call[name].name,))
    if view == "last" and len(after) in (3, 4) and before[-1] == after[-1]:
        # Tokens and images with their channels last: only height and width change.
        call.result = "last"
        return call.made("reshape", (call[name].name,), attributes={"shape": call.output_shape()[1:]})
    operation = call.operation("reshape", name)
    return replace(operation, attributes={"shape": operation.shape[1:]})


def _transpose(call: Call) -> Operation:
    rank = call.rank("self")
    axes = list(range(rank))
    first, second = call["dim0"] % rank, call["dim1"] % rank
    axes[first], axes[second] = axes[second], axes[first]
    return _permuted(call, tuple(axes))


def _permute(call: Call) -> Operation:
    rank = call.rank("self")
    return _permuted(call, tuple(axis % rank for axis in call["dims"]))


def _permuted(call: Call, axes: tuple[int, ...]) -> Operation:
    seen = turned(call.view("self"), axes)
    if seen is not None:
        call.result = seen
        return call.made("identity", (call["self"].name,))
    return call.operation("transpose", "self", attributes={"axes": axes})


def _concat(call: Call) -> Operation:
    views = [call.views.get(part.name, "first") for part in call["tensors"]]
    rank = len(call["tensors"][0].meta["val"].shape)
    view: View = "last" if set(views) == {"last"} and call["dim"] % rank == rank - 1 else "first"
    if view == "first" and call["dim"] % rank != 1:
        raise call.error(f"only joining channels is supported, not dimension {call['dim']}")
    return call.operation("concat", "tensors", view=view, attributes={"axis": 1})


def _slice(call: Call) -> Operation:
    rank, size = call.rank("self"), call["self"].meta["val"].shape
    if call["dim"] % rank == 0 and call["start"] in (0, None):
        return _elementwise(call, "identity")
    if not call.is_channel_axis("self", call["dim"]) or call["step"] != 1:
        raise call.error("only slices of channels are supported")
    start, end, _ = slice(call["start"], call["end"]).indices(int(size[call["dim"] % rank]))
    return _elementwise(call, "slice", start=start, end=end)


def _split(call: Call, picked: fx.Node, index: int) -> Operation:
    """One part of a split or chunk along the channels."""
    if not call.is_channel_axis("self", call["dim"]):
        raise call.error("only splits of channels are supported")
    sizes = [int(part.shape[call["dim"] % call.rank("self")]) for part in call.node.meta["val"]]
    attributes = {"start": sum(sizes[:index]), "end": sum(sizes[: index + 1])}
    call.result = call.view("self")
    shape = list(call.shape("self"))
    shape[1] = sizes[index]
    place = place_of(call.node)
    return Operation(
        picked.name, "slice", place, (call["self"].name,), tuple(shape), attributes=attributes, call=describe(call.node)
    )


def _named(kind: str) -> Rule:
    return lambda call: _elementwise(call, kind)


_UNARY = ("relu", "relu6", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid")
_BY_NAME: dict[str, Rule] = {
    **dict.fromkeys(("conv1d.default", "conv1d.padding", "conv2d.default", "conv2d.padding"), _convolution),
    "linear.default": linear,
    **dict.fromkeys(("conv_transpose2d.input",), _transposed_convolution),
    "batch_norm.default": _batch_norm,
    "add.Tensor": add,
    "sub.Tensor": subtract,
    "mul.Tensor": multiply,
    "div.Tensor": divide,
    "hardtanh.default": _hardtanh,
    "clamp.default": _plain_clamp,
    "leaky_relu.default": _leaky_relu,
    "prelu.default": _prelu,
    "gelu.default": _gelu,
    "layer_norm.default": layer_norm,
    "embedding.default": embedding,
    "scaled_dot_product_attention.default": attention,
    **dict.fromkeys(("matmul.default", "bmm.default"), matrix_product),
    "softmax.int": softmax,
    **{
        f"{kind}.default": _named(kind)
        for kind in ("relu", "relu6", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid")
    },
    "mean.dim": _mean,
    **dict.fromkeys(("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default"), _adaptive_average_pool),
    **dict.fromkeys(("max_pool1d.default", "max_pool2d.default"), _max_pool),
    **dict.fromkeys(("avg_pool1d.default", "avg_pool2d.default"), _average_pool),
    **dict.fromkeys(("constant_pad_nd.default", "pad.default"), _pad),
    **{f"upsample_bilinear2d.{form}": _bilinear for form in ("default", "vec")},
    "pixel_shuffle.default": _pixel_shuffle,
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
    "to.dtype": _named("identity"),
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
