"""How TFLite writes the layers that it has no single operator for, and those that are in float only."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekd.convert.inference import quantize_input
from edgekd.convert.tflite_builder import TfliteBuilder, channels_last
from edgekd.nn.quantized.network import Array, Layer


def emit_constant(builder: TfliteBuilder, layer: Layer) -> None:
    """A stored tensor, on its grid where it has one."""
    assert layer.weight is not None
    grid = builder.network.tensors[layer.output].grid
    data = layer.weight.transpose(0, 2, 3, 1) if layer.weight.ndim == 4 else layer.weight
    if grid is not None:
        data = quantize_input(data, grid.scale, grid.zero_point, np.dtype(f"int{grid.bits}"))
    builder.index[layer.output] = builder.constant(layer.output, np.ascontiguousarray(data), grid=grid)


def emit_embedding(builder: TfliteBuilder, layer: Layer) -> None:
    """Rows of the table, which lies on the output's grid where it has one."""
    assert layer.weight is not None
    tensor, table = builder.network.tensors[layer.output], layer.weight
    grid, (length, width) = tensor.grid, (tensor.shape[3], tensor.shape[1])
    if grid is not None:
        table = quantize_input(table, grid.scale, grid.zero_point, np.dtype(f"int{grid.bits}"))
    ids = builder.tensor(f"{layer.name}/ids", (length,), None)
    builder.tensors[ids].type = builder.schema.TensorType.INT32
    builder.reshape(builder.index[layer.inputs[0]], ids, (length,), f"{layer.name}/length")
    rows = builder.tensor(f"{layer.name}/rows", (length, width), grid)
    stored = builder.constant(f"{layer.name}/table", table, grid=grid)
    builder.operator("GATHER", (1, 2), [stored, ids], rows, builder.schema.GatherOptionsT())
    builder.reshape(rows, builder.output(layer), channels_last(tensor.shape), f"{layer.name}/tokens")


def emit_permute(builder: TfliteBuilder, layer: Layer) -> None:
    """Axes in another order; those of the file are not torch's."""
    stored, axes = (0, 2, 3, 1), layer.attributes["axes"]
    order = np.array([stored.index(axes[axis]) for axis in stored], np.int32)
    inputs = [builder.index[layer.inputs[0]], builder.constant(f"{layer.name}/axes", order)]
    builder.operator("TRANSPOSE", (1, 2), inputs, builder.output(layer), builder.schema.TransposeOptionsT())


def emit_depth_to_space(builder: TfliteBuilder, layer: Layer) -> None:
    """Square blocks have an operator; others, and the rest of them, a reshape, a transpose and a reshape."""
    rows, columns = layer.attributes["factor"]
    tensor = builder.network.tensors[layer.output]
    if rows == columns:
        options = builder.schema.DepthToSpaceOptionsT()
        options.blockSize = rows
        builder.operator("DEPTH_TO_SPACE", (1, 1), [builder.index[layer.inputs[0]]], builder.output(layer), options)
        return
    _, channels, height, width = tensor.shape
    # Only one side grows where the other factor is 1, so four dimensions are enough where both are not larger.
    split = (height // rows, width // columns, rows, columns * channels)
    grouped = builder.tensor(f"{layer.name}/grouped", split, tensor.grid)
    builder.reshape(builder.index[layer.inputs[0]], grouped, split, f"{layer.name}/blocks")
    swapped = builder.tensor(f"{layer.name}/swapped", (split[0], split[2], split[1], split[3]), tensor.grid)
    axes = builder.constant(f"{layer.name}/axes", np.array([0, 2, 1, 3], np.int32))
    builder.operator("TRANSPOSE", (1, 2), [grouped, axes], swapped, builder.schema.TransposeOptionsT())
    builder.reshape(swapped, builder.output(layer), channels_last(tensor.shape), f"{layer.name}/shape")


def emit_bilinear(builder: TfliteBuilder, layer: Layer) -> None:
    """Bilinear interpolation, in float."""
    options = builder.schema.ResizeBilinearOptionsT()
    options.alignCorners = layer.attributes["align_corners"]
    options.halfPixelCenters = not options.alignCorners
    size = builder.constant(f"{layer.name}/size", np.array(layer.attributes["size"], np.int32))
    inputs = [builder.index[layer.inputs[0]], size]
    builder.operator("RESIZE_BILINEAR", (3, 3), inputs, builder.output(layer), options)


def emit_gelu(builder: TfliteBuilder, layer: Layer) -> None:
    """GELU, in float."""
    options = builder.schema.GeluOptionsT()
    options.approximate = layer.attributes["approximate"] == "tanh"
    builder.operator("GELU", (1, 2), [builder.index[layer.inputs[0]]], builder.output(layer), options)


class _Parts:
    """Float operators one after the other, inside one layer."""

    def __init__(self, builder: TfliteBuilder, layer: Layer) -> None:
        self.builder, self.layer, self.count = builder, layer, 0

    def tensor(self, shape: tuple[int, ...]) -> int:
        self.count += 1
        return self.builder.tensor(f"{self.layer.name}/part_{self.count}", shape, None)

    def constant(self, name: str, data: Array) -> int:
        return self.builder.constant(f"{self.layer.name}/{name}", data)

    def do(
        self, code: str, inputs: list[int], shape: tuple[int, ...], output: int | None = None, **options: Any
    ) -> int:
        """An operator of float tensors; `options` are fields of its options."""
        name = {"SQUARED_DIFFERENCE": "SquaredDifference", "MEAN": "Reducer", "BATCH_MATMUL": "BatchMatMul"}
        kind = name.get(code, code.capitalize())
        filled = getattr(self.builder.schema, f"{kind}OptionsT", lambda: None)()
        for field, value in options.items():
            setattr(filled, field, value)
        output = self.tensor(shape) if output is None else output
        self.builder.operator(code, (1, 1), inputs, output, filled)
        return output


def emit_layer_norm(builder: TfliteBuilder, layer: Layer) -> None:
    """Mean, squared differences, their mean, and the rest of the formula; channels are the last axis."""
    assert layer.weight is not None and layer.bias is not None
    parts, shape = _Parts(builder, layer), channels_last(builder.network.tensors[layer.output].shape)
    reduced, (source,) = (*shape[:-1], 1), [builder.index[name] for name in layer.inputs]
    axes = parts.constant("axes", np.array([len(shape) - 1], np.int32))
    mean = parts.do("MEAN", [source, axes], reduced, keepDims=True)
    squares = parts.do("SQUARED_DIFFERENCE", [source, mean], shape)
    variance = parts.do("MEAN", [squares, axes], reduced, keepDims=True)
    eps = parts.constant("eps", np.array([layer.attributes["eps"]], np.float32))
    inverse = parts.do("RSQRT", [parts.do("ADD", [variance, eps], reduced)], reduced)
    centred = parts.do("SUB", [source, mean], shape)
    normal = parts.do("MUL", [centred, inverse], shape)
    gained = parts.do("MUL", [normal, parts.constant("gain", layer.weight)], shape)
    parts.do("ADD", [gained, parts.constant("shift", layer.bias)], shape, builder.output(layer))


def emit_attention(builder: TfliteBuilder, layer: Layer) -> None:
    """Heads split off the channels, two batched products with a softmax between, heads joined again."""
    parts, heads = _Parts(builder, layer), layer.attributes["heads"]
    split: list[tuple[int, int, int]] = []
    for name in layer.inputs:
        _, channels, _, tokens = builder.network.tensors[name].shape
        apart = parts.tensor((1, tokens, heads, channels // heads))
        shape = (1, tokens, heads, channels // heads)
        builder.reshape(builder.index[name], apart, shape, f"{layer.name}/heads_{len(split)}")
        axes = parts.constant(f"axes_{len(split)}", np.array([0, 2, 1, 3], np.int32))
        split.append((parts.do("TRANSPOSE", [apart, axes], (1, heads, tokens, channels // heads)), tokens, channels))
    (query, rows, _), (key, columns, _), (value, _, channels) = split
    scores = (1, heads, rows, columns)
    products = parts.do("BATCH_MATMUL", [query, key], scores, adjY=True)
    factor = parts.constant("scale", np.array([layer.attributes["scale"]], np.float32))
    weights = parts.do("SOFTMAX", [parts.do("MUL", [products, factor], scores)], scores, beta=1.0)
    found = parts.do("BATCH_MATMUL", [weights, value], (1, heads, rows, channels // heads))
    axes = parts.constant("axes_back", np.array([0, 2, 1, 3], np.int32))
    joined = parts.do("TRANSPOSE", [found, axes], (1, rows, heads, channels // heads))
    builder.reshape(joined, builder.output(layer), (1, 1, rows, channels), f"{layer.name}/joined")
