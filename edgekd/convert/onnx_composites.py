"""How ONNX writes the layers that opset 17 has no operator for, and those that are in float only."""

from __future__ import annotations

import math

import numpy as np

from edgekd.convert.onnx_builder import OnnxBuilder
from edgekd.nn.quantized.network import Grid, Layer
from edgekd.nn.quantized.scheme import SCHEMES

_AXES_AS_INPUT = 18
"""From this opset on ReduceMean takes its axes as an input."""


def emit_constant(builder: OnnxBuilder, layer: Layer) -> None:
    """A stored tensor, dequantized where it is on a grid."""
    assert layer.weight is not None
    grid = builder.network.tensors[layer.output].grid
    if grid is None:
        builder.values[layer.output] = builder.constant(f"{layer.output}/values", layer.weight)
        return
    builder.values[layer.output] = builder.stored_on_grid(layer.weight, layer.output, grid)


def emit_embedding(builder: OnnxBuilder, layer: Layer) -> None:
    """Rows of the table, then their features in front as channels; on the output's grid where it has one."""
    assert layer.weight is not None
    tensor, name = builder.network.tensors[layer.output], layer.output
    grid, (length, width) = tensor.grid, (tensor.shape[3], tensor.shape[1])
    if grid is None:
        table = builder.constant(f"{name}/table", layer.weight)
    else:
        table = builder.stored_on_grid(layer.weight, f"{name}/table", grid)
    flat = builder.constant(f"{name}/length", np.array([length], np.int64))
    ids = builder.node("Reshape", [builder.values[layer.inputs[0]], flat], f"{name}/ids")
    rows = builder.between(builder.node("Gather", [table, ids], f"{name}/rows"), f"{name}/rows", grid)
    turned = builder.between(builder.node("Transpose", [rows], f"{name}/turned", perm=[1, 0]), f"{name}/turned", grid)
    shape = builder.constant(f"{name}/shape", np.array([1, width, 1, length], np.int64))
    builder.finish_layer(layer, builder.node("Reshape", [turned, shape], f"{name}/tokens"))


def emit_permute(builder: OnnxBuilder, layer: Layer) -> None:
    """Axes in another order."""
    inputs = [builder.values[layer.inputs[0]]]
    value = builder.node("Transpose", inputs, f"{layer.output}/permuted", perm=layer.attributes["axes"])
    builder.finish_layer(layer, value)


def emit_depth_to_space(builder: OnnxBuilder, layer: Layer) -> None:
    """Blocks of pixels out of channels."""
    rows, columns = layer.attributes["factor"]
    source, tensor = builder.values[layer.inputs[0]], builder.network.tensors[layer.output]
    if rows == columns:
        value = builder.node("DepthToSpace", [source], f"{layer.output}/spread", blocksize=rows, mode="DCR")
        builder.finish_layer(layer, value)
        return
    _, channels, height, width = tensor.shape
    split = np.array([rows, columns, channels, height // rows, width // columns], np.int64)
    value = builder.node(
        "Reshape", [source, builder.constant(f"{layer.output}/blocks", split)], f"{layer.output}/split"
    )
    value = builder.between(value, f"{layer.output}/split", tensor.grid)
    value = builder.node("Transpose", [value], f"{layer.output}/swapped", perm=[2, 3, 0, 4, 1])
    value = builder.between(value, f"{layer.output}/swapped", tensor.grid)
    shape = builder.constant(f"{layer.output}/shape", np.array(tensor.shape, np.int64))
    builder.finish_layer(layer, builder.node("Reshape", [value, shape], f"{layer.output}/spread"))


def emit_bilinear(builder: OnnxBuilder, layer: Layer) -> None:
    """Bilinear interpolation, in float."""
    size = np.array(builder.network.tensors[layer.output].shape, np.int64)
    inputs = [builder.values[layer.inputs[0]], "", "", builder.constant(f"{layer.output}/size", size)]
    corners = "align_corners" if layer.attributes["align_corners"] else "half_pixel"
    value = builder.node(
        "Resize", inputs, f"{layer.output}/resize", mode="linear", coordinate_transformation_mode=corners
    )
    builder.finish_layer(layer, value)


def emit_tanh(builder: OnnxBuilder, layer: Layer) -> None:
    """Where it is int8, the sigmoid of twice the input, read on a grid of twice the step: onnxruntime fuses only that.

    tanh(x) = 2 sigmoid(2x) - 1, so a sigmoid in 256ths, less 128, is a tanh in 128ths. Twice the input is the same
    integer on a grid of twice the step.
    """
    grid, source = builder.network.tensors[layer.output].grid, builder.network.tensors[layer.inputs[0]].grid
    if grid is None or source is None or SCHEMES[builder.network.scheme].symmetric:
        value = builder.node("Tanh", [builder.values[layer.inputs[0]]], f"{layer.output}/tanh")
        builder.finish_layer(layer, value)
        return
    quantized = builder.quantized[layer.inputs[0]]
    doubled = Grid(2 * source.scale, source.zero_point)
    value = builder.boundary("DequantizeLinear", quantized, f"{layer.output}/twice", doubled)
    value = builder.node("Sigmoid", [value], f"{layer.output}/sigmoid")
    steps = builder.boundary("QuantizeLinear", value, f"{layer.output}/q", Grid(1 / 256, -128))
    builder.quantized[layer.output] = steps
    builder.values[layer.output] = builder.boundary("DequantizeLinear", steps, f"{layer.output}/dq", grid)


def emit_gelu(builder: OnnxBuilder, layer: Layer) -> None:
    """GELU by its formula, in float: it came with opset 20."""
    source, name = builder.values[layer.inputs[0]], layer.output

    def number(label: str, value: float) -> str:
        return builder.constant(f"{name}/{label}", np.array(value, np.float32))

    if layer.attributes["approximate"] == "tanh":
        cube = builder.node("Mul", [builder.node("Mul", [source, source], f"{name}/square"), source], f"{name}/cube")
        bent = builder.node("Mul", [cube, number("bend", 0.044715)], f"{name}/bent")
        inner = builder.node("Add", [source, bent], f"{name}/inner")
        scaled = builder.node("Mul", [inner, number("scale", math.sqrt(2 / math.pi))], f"{name}/scaled")
        curve = builder.node("Tanh", [scaled], f"{name}/curve")
    else:
        scaled = builder.node("Mul", [source, number("scale", math.sqrt(0.5))], f"{name}/scaled")
        curve = builder.node("Erf", [scaled], f"{name}/curve")
    half = builder.node("Mul", [source, number("half", 0.5)], f"{name}/halved")
    share = builder.node("Add", [curve, number("one", 1.0)], f"{name}/share")
    builder.finish_layer(layer, builder.node("Mul", [half, share], f"{name}/gelu"))


def emit_layer_norm(builder: OnnxBuilder, layer: Layer) -> None:
    """The formula, in float: LayerNormalization wants its axis last."""
    assert layer.weight is not None and layer.bias is not None
    source, name = builder.values[layer.inputs[0]], layer.output
    rank = len(builder.network.tensors[name].shape)
    shape = (1, -1, *[1] * (rank - 2))

    def mean(value: str, label: str) -> str:
        if builder.opset >= _AXES_AS_INPUT:
            axes = builder.constant(f"{name}/{label}_axes", np.array([1], np.int64))
            return builder.node("ReduceMean", [value, axes], f"{name}/{label}", keepdims=1)
        return builder.node("ReduceMean", [value], f"{name}/{label}", axes=[1], keepdims=1)

    centred = builder.node("Sub", [source, mean(source, "mean")], f"{name}/centred")
    variance = mean(builder.node("Mul", [centred, centred], f"{name}/squares"), "variance")
    eps = builder.constant(f"{name}/eps", np.array(layer.attributes["eps"], np.float32))
    spread = builder.node("Sqrt", [builder.node("Add", [variance, eps], f"{name}/padded")], f"{name}/spread")
    normal = builder.node("Div", [centred, spread], f"{name}/normal")
    gain = builder.constant(f"{name}/gain", layer.weight.reshape(shape))
    shift = builder.constant(f"{name}/shift", layer.bias.reshape(shape))
    gained = builder.node("Mul", [normal, gain], f"{name}/gained")
    builder.finish_layer(layer, builder.node("Add", [gained, shift], f"{name}/shifted"))


def emit_attention(builder: OnnxBuilder, layer: Layer) -> None:
    """Heads split off the channels, two products with a softmax between, heads joined; tokens are last."""
    heads, name = layer.attributes["heads"], layer.output
    split = []
    for label, source in zip(("query", "key", "value"), layer.inputs, strict=True):
        _, channels, _, tokens = builder.network.tensors[source].shape
        shape = builder.constant(f"{name}/{label}_shape", np.array([1, heads, channels // heads, tokens], np.int64))
        split.append(builder.node("Reshape", [builder.values[source], shape], f"{name}/{label}"))
    query, key, value = split
    rows = builder.node("Transpose", [query], f"{name}/rows", perm=[0, 1, 3, 2])
    products = builder.node("MatMul", [rows, key], f"{name}/products")
    scale = builder.constant(f"{name}/scale", np.array(layer.attributes["scale"], np.float32))
    weights = builder.node("Softmax", [builder.node("Mul", [products, scale], f"{name}/scaled")], f"{name}/weights")
    columns = builder.node("Transpose", [weights], f"{name}/columns", perm=[0, 1, 3, 2])
    found = builder.node("MatMul", [value, columns], f"{name}/found")
    shape = builder.constant(f"{name}/shape", np.array(builder.network.tensors[name].shape, np.int64))
    builder.finish_layer(layer, builder.node("Reshape", [found, shape], f"{name}/joined"))
