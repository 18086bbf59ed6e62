"""Rules of layers over tokens (N, T, F): linear layers, layer norms, attention."""

from __future__ import annotations

import math

from torch import fx

from edgekd.nn.quantized.calls import Call
from edgekd.nn.quantized.operations import Operation


def linear(call: Call) -> Operation:
    """A matrix product over the last dimension: over tokens, or an image's pixels, a 1x1 convolution."""
    parameters = call.constants("weight", "bias")
    if call.rank("input") == 2:
        return call.operation("linear", "input", parameters=parameters)
    parameters["weight"] = parameters["weight"][:, :, None, None]
    attributes = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
    return call.operation("conv", "input", view="last", parameters=parameters, attributes=attributes)


def layer_norm(call: Call) -> Operation:
    """A layer norm over the last dimension."""
    if len(call["normalized_shape"]) != 1:
        raise call.error("only a layer norm over the last dimension is supported")
    view = "first" if call.rank("input") == 2 else "last"
    return call.operation(
        "layer_norm",
        "input",
        view=view,  # type: ignore[arg-type]
        parameters=call.constants("weight", "bias"),
        attributes={"eps": float(call["eps"])},
    )


def attention(call: Call) -> Operation:
    """Scaled dot-product attention over (N, heads, T, d)."""
    if call["attn_mask"] is not None or call["is_causal"] or call["dropout_p"]:
        raise call.error("only attention without a mask and without dropout is supported")
    names = ("query", "key", "value")
    if any(call.view(name) != "heads" for name in names):
        raise call.error("its inputs must be tokens (N, T, F) split into heads and transposed, (N, heads, T, d)")
    _, heads, _, depth = call.own_shape("query")
    scale = 1 / math.sqrt(depth) if call["scale"] is None else float(call["scale"])
    call.result = "heads"
    stored = tuple(call[name].name for name in names)
    return call.made("attention", stored, attributes={"heads": heads, "scale": scale})


def matrix_product(call: Call) -> Operation:
    """Scores of queries against keys, or values weighted by scores: `rewrite` makes attention of the two."""
    first, second = list(call.values)[:2]
    if call.is_constant(first) or call.is_constant(second):
        raise call.error("a matrix product with a parameter is supported as a linear layer only")
    views = call.view(first), call.view(second)
    stored = (call[first].name, call[second].name)
    if views == ("heads", "keys"):
        _, heads, _, depth = call.own_shape(first)
        return call.made("scores", stored, attributes={"heads": heads, "scale": 1.0})
    if views[1] == "heads":
        call.result = "heads"
        return call.made("weighted", stored)
    raise call.error("only the products of attention, over (N, heads, T, d), are supported")


def softmax(call: Call) -> Operation:
    """A softmax over classes, or over the scores of attention, which `rewrite` makes a part of it."""
    rank = call.rank("self")
    if rank == 4 and call["dim"] % 4 == 3:
        return call.made("softmax_of_scores", (call["self"].name,))
    if rank != 2 or call["dim"] % 2 != 1:
        raise call.error("only a softmax over the classes of (N, classes), or inside attention, is supported")
    return call.operation("softmax", "self")


def embedding(call: Call) -> Operation:
    """Rows of a table by the ids that are the network's input, through whatever only reshapes or casts them."""
    node = call["indices"]
    while isinstance(node, fx.Node) and node.op == "call_function" and str(node.target) in _PASSES_IDS:
        node = node.args[0]
    if not isinstance(node, fx.Node) or node.op != "placeholder" or call.rank("indices") != 2:
        raise call.error("only an embedding of the network's own input, ids (N, L), is supported")
    call.result = "last"
    return call.made("embedding", (node.name,), parameters=call.constants("weight"))


_PASSES_IDS = {
    f"aten.{name}" for name in ("to.dtype", "_to_copy.default", "flatten.using_ints", "view.default", "reshape.default")
} | {f"aten.{name}" for name in ("squeeze.dim", "squeeze.dims", "squeeze.default", "select.int")}
