"""How each layer is written in TFLite: one function per kind, from the layer's attributes to operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgekd.convert.tflite_composites import (
    emit_attention,
    emit_bilinear,
    emit_constant,
    emit_depth_to_space,
    emit_embedding,
    emit_gelu,
    emit_layer_norm,
    emit_permute,
)
from edgekd.convert.tflite_writer import Writer, channels_last
from edgekd.errors import BuildError
from edgekd.nn.quantized.network import Layer


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What TFLite's SAME pads along one axis: (before, after)."""
    outputs = math.ceil(size / stride)
    total = max((outputs - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def _padded(
    writer: Writer, layer: Layer, kernel: tuple[int, int], never_wins: bool = False, counts: bool = False
) -> tuple[int, int]:
    """Index of the window's input and the padding's code; an explicit PAD where neither SAME nor VALID fits.

    The padding is zeros, or with `never_wins` the least value there is, for maxima. `counts`: SAME does not fit,
    because it leaves padding out of a mean.
    """
    (source,) = layer.inputs
    tensor, padding = writer.network.tensors[source], layer.attributes["padding"]
    same: list[int] = []
    for axis in (0, 1):
        stride, dilation = layer.attributes["stride"][axis], layer.attributes.get("dilation", (1, 1))[axis]
        same += _same_padding(tensor.shape[2 + axis], kernel[axis], stride, dilation)
    if not any(padding):
        return writer.index[source], writer.schema.Padding.VALID
    if tuple(padding) == tuple(same) and not counts:
        return writer.index[source], writer.schema.Padding.SAME
    top, bottom, left, right = padding
    _, channels, height, width = tensor.shape
    amounts = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    padded = writer.tensor(
        f"{layer.name}/padded", (1, height + top + bottom, width + left + right, channels), tensor.grid
    )
    inputs = [writer.index[source], writer.constant(f"{layer.name}/padding", amounts)]
    if never_wins and (tensor.grid is None or tensor.grid.zero_point != -128):
        least = np.array([-128], np.int8) if tensor.grid else np.array([np.finfo(np.float32).min], np.float32)
        inputs.append(writer.constant(f"{layer.name}/least", least, grid=tensor.grid))
        writer.operator("PADV2", (1, 2), inputs, padded, writer.schema.PadV2OptionsT())
    else:
        writer.operator("PAD", (1, 2), inputs, padded, writer.schema.PadOptionsT())
    return padded, writer.schema.Padding.VALID


def _conv(writer: Writer, layer: Layer) -> None:
    weight = layer.weight
    assert weight is not None
    source, padding = _padded(writer, layer, weight.shape[2:])
    channels, groups = writer.network.tensors[layer.inputs[0]].shape[1], layer.attributes["groups"]
    depthwise = groups == channels and groups > 1
    options = writer.schema.DepthwiseConv2DOptionsT() if depthwise else writer.schema.Conv2DOptionsT()
    options.padding, options.fusedActivationFunction = padding, writer.fused(layer)
    options.strideH, options.strideW = layer.attributes["stride"]
    options.dilationHFactor, options.dilationWFactor = layer.attributes["dilation"]
    if depthwise:
        options.depthMultiplier = len(weight) // channels
        stored = writer.weight(layer, weight.transpose(1, 2, 3, 0), axis=3)
    else:
        stored = writer.weight(layer, weight.transpose(0, 2, 3, 1))
    code, versions = ("DEPTHWISE_CONV_2D", (2, 3)) if depthwise else ("CONV_2D", (1 if groups == 1 else 6, 3))
    inputs = [source, stored, writer.bias(layer, layer.inputs[0])]
    if layer.activation == "relu1" and writer.network.tensors[layer.output].grid is None:
        raw = writer.temporary(layer)
        writer.operator(code, versions, inputs, raw, options)
        writer.operator("RELU_0_TO_1", (1, 1), [raw], writer.output(layer), None)
        return
    writer.operator(code, versions, inputs, writer.output(layer), options)


def _linear(writer: Writer, layer: Layer) -> None:
    (source,) = layer.inputs
    weight = layer.weight
    assert weight is not None
    if source in writer.flattened:
        channels, height, width = writer.flattened[source]
        weight = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    options = writer.schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = writer.fused(layer)
    stored = writer.weight(layer, weight)
    inputs = [writer.index[source], stored, writer.bias(layer, source)]
    # Version 12 is the first whose int8 kernels take one weight scale per output.
    writer.operator("FULLY_CONNECTED", (1, 12), inputs, writer.output(layer), options)


def _arithmetic(code: str) -> Callable[[Writer, Layer], None]:
    def emit(writer: Writer, layer: Layer) -> None:
        options = writer.schema.AddOptionsT() if code == "ADD" else writer.schema.MulOptionsT()
        options.fusedActivationFunction = writer.fused(layer)
        writer.operator(code, (1, 2), [writer.index[name] for name in layer.inputs], writer.output(layer), options)

    return emit


def _pool(code: str) -> Callable[[Writer, Layer], None]:
    def emit(writer: Writer, layer: Layer) -> None:
        options = writer.schema.Pool2DOptionsT()
        options.filterHeight, options.filterWidth = layer.attributes["kernel"]
        options.strideH, options.strideW = layer.attributes["stride"]
        maxima = code == "MAX_POOL_2D"
        source, options.padding = _padded(writer, layer, layer.attributes["kernel"], maxima, counts=not maxima)
        writer.operator(code, (1, 2), [source], writer.output(layer), options)

    return emit


def _unary(
    code: str, versions: tuple[int, int], options: Callable[[Any, Layer], Any]
) -> Callable[[Writer, Layer], None]:
    def emit(writer: Writer, layer: Layer) -> None:
        inputs = [writer.index[layer.inputs[0]]]
        writer.operator(code, versions, inputs, writer.output(layer), options(writer.schema, layer))

    return emit


def _leaky_relu_options(schema: Any, layer: Layer) -> Any:
    options = schema.LeakyReluOptionsT()
    options.alpha = layer.attributes["slope"]
    return options


def _softmax_options(schema: Any, layer: Layer) -> Any:
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    return options


def _concat(writer: Writer, layer: Layer) -> None:
    output = writer.network.tensors[layer.output]
    inputs = []
    for position, name in enumerate(layer.inputs):
        tensor = writer.network.tensors[name]
        inputs.append(writer.index[name])
        if tensor.grid != output.grid:
            inputs[-1] = writer.tensor(f"{layer.name}/input_{position}", channels_last(tensor.shape), output.grid)
            writer.operator("QUANTIZE", (1, 2), [writer.index[name]], inputs[-1], writer.schema.QuantizeOptionsT())
    options = writer.schema.ConcatenationOptionsT()
    options.axis = len(output.shape) - 1
    writer.operator("CONCATENATION", (1, 2), inputs, writer.output(layer), options)


def _slice(writer: Writer, layer: Layer) -> None:
    shape = channels_last(writer.network.tensors[layer.inputs[0]].shape)
    starts, sizes = np.zeros(len(shape), np.int32), np.array(shape, np.int32)
    starts[-1], sizes[-1] = layer.attributes["start"], layer.attributes["end"] - layer.attributes["start"]
    inputs = [writer.index[layer.inputs[0]]]
    inputs += [writer.constant(f"{layer.name}/begin", starts), writer.constant(f"{layer.name}/size", sizes)]
    writer.operator("SLICE", (1, 2), inputs, writer.output(layer), writer.schema.SliceOptionsT())


def _channel_shuffle(writer: Writer, layer: Layer) -> None:
    tensor, groups = writer.network.tensors[layer.output], layer.attributes["groups"]
    _, channels, height, width = tensor.shape
    # Height and width move together, so that the transpose is of four dimensions, the most XNNPACK likes.
    grouped, swapped = (1, height * width, groups, channels // groups), (1, height * width, channels // groups, groups)
    first = writer.tensor(f"{layer.name}/grouped", grouped, tensor.grid)
    writer.reshape(writer.index[layer.inputs[0]], first, grouped, f"{layer.name}/groups")
    second = writer.tensor(f"{layer.name}/swapped", swapped, tensor.grid)
    axes = writer.constant(f"{layer.name}/axes", np.array([0, 1, 3, 2], np.int32))
    writer.operator("TRANSPOSE", (1, 2), [first, axes], second, writer.schema.TransposeOptionsT())
    writer.reshape(second, writer.output(layer), channels_last(tensor.shape), f"{layer.name}/channels")


def _upsample(writer: Writer, layer: Layer) -> None:
    _, _, height, width = writer.network.tensors[layer.output].shape
    size = writer.constant(f"{layer.name}/size", np.array([height, width], np.int32))
    options = writer.schema.ResizeNearestNeighborOptionsT()
    inputs = [writer.index[layer.inputs[0]], size]
    writer.operator("RESIZE_NEAREST_NEIGHBOR", (1, 2), inputs, writer.output(layer), options)


def _global_average_pool(writer: Writer, layer: Layer) -> None:
    options = writer.schema.ReducerOptionsT()
    options.keepDims = layer.attributes["keepdim"]
    axes = writer.constant(f"{layer.name}/axes", np.array([1, 2], np.int32))
    writer.operator("MEAN", (1, 2), [writer.index[layer.inputs[0]], axes], writer.output(layer), options)


def _reshape(writer: Writer, layer: Layer) -> None:
    (source,) = layer.inputs
    shape = writer.network.tensors[source].shape
    readers = {reader.kind for reader in writer.network.layers if layer.output in reader.inputs}
    if readers == {"linear"} and len(shape) == 4 and len(layer.attributes["shape"]) == 1:
        # A fully connected layer flattens its input itself; its columns follow TFLite's order of the elements.
        writer.index[layer.output] = writer.index[source]
        writer.flattened[layer.output] = shape[1:]
        return
    target = channels_last((1, *layer.attributes["shape"]))
    after = (1, *layer.attributes["shape"])
    keeps_channels = len(shape) == len(after) == 4 and shape[1] == after[1]
    if not keeps_channels and (_moved_order(shape) or _moved_order(after)):
        raise BuildError(
            f"{layer.name}: TFLite keeps channels last, so reshaping {shape} to {target} reorders elements"
        )
    writer.reshape(writer.index[source], writer.output(layer), target, f"{layer.name}/shape")


def _moved_order(shape: tuple[int, ...]) -> bool:
    """Whether channels last orders the elements of this shape differently than torch does."""
    return len(shape) == 4 and shape[1] > 1 and shape[2] * shape[3] > 1


def _border(code: str) -> Callable[[Writer, Layer], None]:
    def emit(writer: Writer, layer: Layer) -> None:
        kind = "QuantizeOptionsT" if code == "QUANTIZE" else "DequantizeOptionsT"
        inputs = [writer.index[layer.inputs[0]]]
        writer.operator(code, (1, 2), inputs, writer.output(layer), getattr(writer.schema, kind)())

    return emit


EMITTERS: dict[str, Callable[[Writer, Layer], None]] = {
    "conv": _conv,
    "linear": _linear,
    "add": _arithmetic("ADD"),
    "mul": _arithmetic("MUL"),
    "max_pool": _pool("MAX_POOL_2D"),
    "average_pool": _pool("AVERAGE_POOL_2D"),
    "sigmoid": _unary("LOGISTIC", (1, 2), lambda schema, layer: None),
    "hardswish": _unary("HARD_SWISH", (1, 1), lambda schema, layer: schema.HardSwishOptionsT()),
    "leaky_relu": _unary("LEAKY_RELU", (1, 2), _leaky_relu_options),
    "softmax": _unary("SOFTMAX", (1, 2), _softmax_options),
    "concat": _concat,
    "slice": _slice,
    "channel_shuffle": _channel_shuffle,
    "upsample": _upsample,
    "global_average_pool": _global_average_pool,
    "reshape": _reshape,
    "constant": emit_constant,
    "embedding": emit_embedding,
    "permute": emit_permute,
    "depth_to_space": emit_depth_to_space,
    "upsample_bilinear": emit_bilinear,
    "tanh": _unary("TANH", (1, 2), lambda schema, layer: None),
    "gelu": emit_gelu,
    "layer_norm": emit_layer_norm,
    "attention": emit_attention,
    "quantize": _border("QUANTIZE"),
    "dequantize": _border("DEQUANTIZE"),
}
