"""Sums and products: of two tensors, or of one and a constant, which becomes a tensor of its own."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from edgekd.nn.quantized.calls import Call, describe, place_of
from edgekd.nn.quantized.operations import Operation
from edgekd.nn.quantized.views import View


def add(call: Call) -> Operation:
    """`self + other`."""
    _require_alpha(call)
    return _binary(call, "add")


def subtract(call: Call) -> Operation:
    """`self - constant`; of two tensors there is no difference that all runtimes round alike."""
    _require_alpha(call)
    if isinstance(call["other"], fx.Node) and not call.is_constant("other"):
        raise call.error("only a constant can be subtracted; add the negative instead")
    return _binary(call, "add", negate=True)


def multiply(call: Call) -> Operation:
    """`self * other`."""
    return _binary(call, "mul")


def divide(call: Call) -> Operation:
    """`self / constant`."""
    if isinstance(call["other"], fx.Node) and not call.is_constant("other"):
        raise call.error("only a constant can be divided by")
    return _binary(call, "mul", invert=True)


def _require_alpha(call: Call) -> None:
    if call["alpha"] != 1:
        raise call.error(f"alpha must be 1, but is {call['alpha']}")


def _binary(call: Call, kind: str, negate: bool = False, invert: bool = False) -> Operation:
    values = [call["self"], call["other"]]
    constants = [_constant(call, value) for value in values]
    tensors = [value for value, constant in zip(values, constants, strict=True) if constant is None]
    call.result = call.views.get(tensors[0].name, "first")
    names = []
    for value, constant in zip(values, constants, strict=True):
        if constant is None:
            names.append(call.tensor(value, call.result))
            continue
        constant = -constant if negate else 1.0 / constant if invert else constant
        names.append(_stored(call, constant, call.result))
    ranks = [len(value.meta["val"].shape) for value in tensors]
    if len(set(ranks)) > 1:
        shapes = [tuple(value.meta["val"].shape[1:]) for value in tensors]
        raise call.error(f"the shapes {shapes[0]} and {shapes[1]} differ in rank")
    return call.made(kind, tuple(names))


def _constant(call: Call, value: object) -> Tensor | None:
    if isinstance(value, (int, float)):
        return torch.tensor(float(value))
    if isinstance(value, fx.Node) and value.name in call.constants_by_name:
        return call.constants_by_name[value.name].detach().float()
    return None


def _stored(call: Call, constant: Tensor, view: View) -> str:
    """A constant as an operation without inputs, in the output's view, its first dimension the batch's."""
    rank = len(call.own_shape())
    shaped = constant.reshape(*[1] * (rank - constant.dim()), *constant.shape)
    if rank > 2 and view == "last":
        shaped = shaped.movedim(-1, 1)
    elif view not in ("first", "last") and constant.numel() > 1:
        raise call.error("a constant per head is not supported")
    if rank == 3:
        shaped = shaped.unsqueeze(2)
    elif view not in ("first", "last"):
        shaped = shaped.reshape(1, 1, 1, 1)
    name = f"{call.node.name}_constant"
    call.before.append(
        Operation(name, "constant", place_of(call.node), (), tuple(shaped.shape), {"value": shaped},
                  call=describe(call.node))
    )  # fmt: skip
    return name
