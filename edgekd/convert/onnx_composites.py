"""How ONNX writes the layers that opset 17 has no operator for, and those that are in float only."""

from __future__ import annotations

import math

import numpy as np

from edgekd.convert.onnx_writer import Writer
from edgekd.nn.quantized.network import Grid, Layer
from edgekd.nn.quantized.scheme import SCHEMES

_AXES_AS_INPUT = 18
"""From this opset on ReduceMean takes its axes as an input."""


def emit_constant(writer: Writer, layer: Layer) -> None:
    """A stored tensor, dequantized where it is on a grid."""
    assert layer.weight is not None
    grid = writer.network.tensors[layer.output].grid
    if grid is None:
        writer.values[layer.output] = writer.constant(f"{layer.output}/values", layer.weight)
        return
    writer.values[layer.output] = writer.stored_on_grid(layer.weight, layer.output, grid)


def emit_embedding(writer: Writer, layer: Layer) -> None:
    """Rows of the table, then their features in front as channels; on the output's grid where it has one."""
    assert layer.weight is not None
    tensor, name = writer.network.tensors[layer.output], layer.output
    grid, (length, width) = tensor.grid, (tensor.shape[3], tensor.shape[1])
    if grid is None:
        table = writer.constant(f"{name}/table", layer.weight)
    else:
        table = writer.stored_on_grid(layer.weight, f"{name}/table", grid)
    flat = writer.constant(f"{name}/length", np.array([length], np.int64))
    ids = writer.node("Reshape", [writer.values[layer.inputs[0]], flat], f"{name}/ids")
    rows = writer.between(writer.node("Gather", [table, ids], f"{name}/rows"), f"{name}/rows", grid)
    turned = writer.between(writer.node("Transpose", [rows], f"{name}/turned", perm=[1, 0]), f"{name}/turned", grid)
    shape = writer.constant(f"{name}/shape", np.array([1, width, 1, length], np.int64))
    writer.finish_layer(layer, writer.node("Reshape", [turned, shape], f"{name}/tokens"))


def emit_permute(writer: Writer, layer: Layer) -> None:
    """Axes in another order."""
    inputs = [writer.values[layer.inputs[0]]]
    value = writer.node("Transpose", inputs, f"{layer.output}/permuted", perm=layer.attributes["axes"])
    writer.finish_layer(layer, value)


def emit_depth_to_space(writer: Writer, layer: Layer) -> None:
    """Blocks of pixels out of channels."""
    rows, columns = layer.attributes["factor"]
    source, tensor = writer.values[layer.inputs[0]], writer.network.tensors[layer.output]
    if rows == columns:
        value = writer.node("DepthToSpace", [source], f"{layer.output}/spread", blocksize=rows, mode="DCR")
        writer.finish_layer(layer, value)
        return
    _, channels, height, width = tensor.shape
    split = np.array([rows, columns, channels, height // rows, width // columns], np.int64)
    value = writer.node("Reshape", [source, writer.constant(f"{layer.output}/blocks", split)], f"{layer.output}/split")
    value = writer.between(value, f"{layer.output}/split", tensor.grid)
    value = writer.node("Transpose", [value], f"{layer.output}/swapped", perm=[2, 3, 0, 4, 1])
    value = writer.between(value, f"{layer.output}/swapped", tensor.grid)
    shape = writer.constant(f"{layer.output}/shape", np.array(tensor.shape, np.int64))
    writer.finish_layer(layer, writer.node("Reshape", [value, shape], f"{layer.output}/spread"))


def emit_bilinear(writer: Writer, layer: Layer) -> None:
    """Bilinear interpolation, in float."""
    size = np.array(writer.network.tensors[layer.output].shape, np.int64)
    inputs = [writer.values[layer.inputs[0]], "", "", writer.constant(f"{layer.output}/size", size)]
    corners = "align_corners" if layer.attributes["align_corners"] else "half_pixel"
    value = writer.node(
        "Resize", inputs, f"{layer.output}/resize", mode="linear", coordinate_transformation_mode=corners
    )
    writer.finish_layer(layer, value)


def emit_tanh(writer: Writer, layer: Layer) -> None:
    """Where it is int8, the sigmoid of twice the input, read on a grid of twice the step: onnxruntime fuses only that.

    tanh(x) = 2 sigmoid(2x) - 1, so a sigmoid in 256ths, less 128, is a tanh in 128ths. Twice the input is the same
    integer on a grid of twice the step.
    """
    grid, source = writer.network.tensors[layer.output].grid, writer.network.tensors[layer.inputs[0]].grid
    if grid is None or source is None or SCHEMES[writer.network.scheme].symmetric:
        value = writer.node("Tanh", [writer.values[layer.inputs[0]]], f"{layer.output}/tanh")
        writer.finish_layer(layer, value)
        return
    quantized = writer.quantized[layer.inputs[0]]
    doubled = Grid(2 * source.scale, source.zero_point)
    value = writer.boundary("DequantizeLinear", quantized, f"{layer.output}/twice", doubled)
    value = writer.node("Sigmoid", [value], f"{layer.output}/sigmoid")
    steps = writer.boundary("QuantizeLinear", value, f"{layer.output}/q", Grid(1 / 256, -128))
    writer.quantized[layer.output] = steps
    writer.values[layer.output] = writer.boundary("DequantizeLinear", steps, f"{layer.output}/dq", grid)


def emit_gelu(writer: Writer, layer: Layer) -> None:
    """GELU by its formula, in float: it came with opset 20."""
    source, name = writer.values[layer.inputs[0]], layer.output

    def number(label: str, value: float) -> str:
        return writer.constant(f"{name}/{label}", np.array(value, np.float32))

    if layer.attributes["approximate"] == "tanh":
        cube = writer.node("Mul", [writer.node("Mul", [source, source], f"{name}/square"), source], f"{name}/cube")
        bent = writer.node("Mul", [cube, number("bend", 0.044715)], f"{name}/bent")
        inner = writer.node("Add", [source, bent], f"{name}/inner")
        scaled = writer.node("Mul", [inner, number("scale", math.sqrt(2 / math.pi))], f"{name}/scaled")
        curve = writer.node("Tanh", [scaled], f"{name}/curve")
    else:
        scaled = writer.node("Mul", [source, number("scale", math.sqrt(0.5))], f"{name}/scaled")
        curve = writer.node("Erf", [scaled], f"{name}/curve")
    half = writer.node("Mul", [source, number("half", 0.5)], f"{name}/halved")
    share = writer.node("Add", [curve, number("one", 1.0)], f"{name}/share")
    writer.finish_layer(layer, writer.node("Mul", [half, share], f"{name}/gelu"))


def emit_layer_norm(writer: Writer, layer: Layer) -> None:
    """The formula, in float: LayerNormalization wants its axis last."""
    assert layer.weight is not None and layer.bias is not None
    source, name = writer.values[layer.inputs[0]], layer.output
    rank = len(writer.network.tensors[name].shape)
    shape = (1, -1, *[1] * (rank - 2))

    def mean(value: str, label: str) -> str:
        if writer.opset >= _AXES_AS_INPUT:
            axes = writer.constant(f"{name}/{label}_axes", np.array([1], np.int64))
            return writer.node("ReduceMean", [value, axes], f"{name}/{label}", keepdims=1)
        return writer.node("ReduceMean", [value], f"{name}/{label}", axes=[1], keepdims=1)

    centred = writer.node("Sub", [source, mean(source, "mean")], f"{name}/centred")
    variance = mean(writer.node("Mul", [centred, centred], f"{name}/squares"), "variance")
    eps = writer.constant(f"{name}/eps", np.array(layer.attributes["eps"], np.float32))
    spread = writer.node("Sqrt", [writer.node("Add", [variance, eps], f"{name}/padded")], f"{name}/spread")
    normal = writer.node("Div", [centred, spread], f"{name}/normal")
    gain = writer.constant(f"{name}/gain", layer.weight.reshape(shape))
    shift = writer.constant(f"{name}/shift", layer.bias.reshape(shape))
    gained = writer.node("Mul", [normal, gain], f"{name}/gained")
    writer.finish_layer(layer, writer.node("Add", [gained, shift], f"{name}/shifted"))


def emit_attention(writer: Writer, layer: Layer) -> None:
    """Heads split off the channels, two products with a softmax between, heads joined; tokens are last."""
    heads, name = layer.attributes["heads"], layer.output
    split = []
    for label, source in zip(("query", "key", "value"), layer.inputs, strict=True):
        _, channels, _, tokens = writer.network.tensors[source].shape
        shape = writer.constant(f"{name}/{label}_shape", np.array([1, heads, channels // heads, tokens], np.int64))
        split.append(writer.node("Reshape", [writer.values[source], shape], f"{name}/{label}"))
    query, key, value = split
    rows = writer.node("Transpose", [query], f"{name}/rows", perm=[0, 1, 3, 2])
    products = writer.node("MatMul", [rows, key], f"{name}/products")
    scale = writer.constant(f"{name}/scale", np.array(layer.attributes["scale"], np.float32))
    weights = writer.node("Softmax", [writer.node("Mul", [products, scale], f"{name}/scaled")], f"{name}/weights")
    columns = writer.node("Transpose", [weights], f"{name}/columns", perm=[0, 1, 3, 2])
    found = writer.node("MatMul", [value, columns], f"{name}/found")
    shape = writer.constant(f"{name}/shape", np.array(writer.network.tensors[name].shape, np.int64))
    writer.finish_layer(layer, writer.node("Reshape", [found, shape], f"{name}/joined"))
