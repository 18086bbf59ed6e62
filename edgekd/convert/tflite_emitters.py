"""How each layer is written in TFLite: one function per kind, from the layer's attributes to operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgekd.convert.tflite_builder import TfliteBuilder, channels_last
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
from edgekd.errors import BuildError
from edgekd.nn.quantized.network import Layer


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What TFLite's SAME pads along one axis: (before, after)."""
    outputs = math.ceil(size / stride)
    total = max((outputs - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def _padded(
    builder: TfliteBuilder, layer: Layer, kernel: tuple[int, int], never_wins: bool = False, counts: bool = False
) -> tuple[int, int]:
    """Index of the window's input and the padding's code; an explicit PAD where neither SAME nor VALID fits.

    The padding is zeros, or with `never_wins` the least value there is, for maxima. `counts`: SAME does not fit,
    because it leaves padding out of a mean.
    """
    (source,) = layer.inputs
    tensor, padding = builder.network.tensors[source], layer.attributes["padding"]
    same: list[int] = []
    for axis in (0, 1):
        stride, dilation = layer.attributes["stride"][axis], layer.attributes.get("dilation", (1, 1))[axis]
        same += _same_padding(tensor.shape[2 + axis], kernel[axis], stride, dilation)
    if not any(padding):
        return builder.index[source], builder.schema.Padding.VALID
    if tuple(padding) == tuple(same) and not counts:
        return builder.index[source], builder.schema.Padding.SAME
    top, bottom, left, right = padding
    _, channels, height, width = tensor.shape
    amounts = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    padded = builder.tensor(
        f"{layer.name}/padded", (1, height + top + bottom, width + left + right, channels), tensor.grid
    )
    inputs = [builder.index[source], builder.constant(f"{layer.name}/padding", amounts)]
    if never_wins and (tensor.grid is None or tensor.grid.zero_point != -128):
        kind = np.dtype(f"int{tensor.grid.bits}" if tensor.grid else "float32")
        least = np.array([np.iinfo(kind).min if tensor.grid else np.finfo(kind).min], kind)
        inputs.append(builder.constant(f"{layer.name}/least", least, grid=tensor.grid))
        builder.operator("PADV2", (1, 2), inputs, padded, builder.schema.PadV2OptionsT())
    else:
        builder.operator("PAD", (1, 2), inputs, padded, builder.schema.PadOptionsT())
    return padded, builder.schema.Padding.VALID


def _conv(builder: TfliteBuilder, layer: Layer) -> None:
    weight = layer.weight
    assert weight is not None
    source, padding = _padded(builder, layer, weight.shape[2:])
    channels, groups = builder.network.tensors[layer.inputs[0]].shape[1], layer.attributes["groups"]
    depthwise = groups == channels and groups > 1
    options = builder.schema.DepthwiseConv2DOptionsT() if depthwise else builder.schema.Conv2DOptionsT()
    options.padding, options.fusedActivationFunction = padding, builder.fused(layer)
    options.strideH, options.strideW = layer.attributes["stride"]
    options.dilationHFactor, options.dilationWFactor = layer.attributes["dilation"]
    if depthwise:
        options.depthMultiplier = len(weight) // channels
        stored = builder.weight(layer, weight.transpose(1, 2, 3, 0), axis=3)
    else:
        stored = builder.weight(layer, weight.transpose(0, 2, 3, 1))
    code, versions = ("DEPTHWISE_CONV_2D", (2, 3)) if depthwise else ("CONV_2D", (1 if groups == 1 else 6, 3))
    inputs = [source, stored, builder.bias(layer, layer.inputs[0])]
    if layer.activation == "relu1" and builder.network.tensors[layer.output].grid is None:
        raw = builder.temporary(layer)
        builder.operator(code, versions, inputs, raw, options)
        builder.operator("RELU_0_TO_1", (1, 1), [raw], builder.output(layer), None)
        return
    builder.operator(code, versions, inputs, builder.output(layer), options)


def _linear(builder: TfliteBuilder, layer: Layer) -> None:
    (source,) = layer.inputs
    weight = layer.weight
    assert weight is not None
    if source in builder.flattened:
        channels, height, width = builder.flattened[source]
        weight = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    options = builder.schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = builder.fused(layer)
    stored = builder.weight(layer, weight)
    inputs = [builder.index[source], stored, builder.bias(layer, source)]
    # Version 12 is the first whose int8 kernels take one weight scale per output.
    builder.operator("FULLY_CONNECTED", (1, 12), inputs, builder.output(layer), options)


def _arithmetic(code: str) -> Callable[[TfliteBuilder, Layer], None]:
    def emit(builder: TfliteBuilder, layer: Layer) -> None:
        options = builder.schema.AddOptionsT() if code == "ADD" else builder.schema.MulOptionsT()
        options.fusedActivationFunction = builder.fused(layer)
        builder.operator(code, (1, 2), [builder.index[name] for name in layer.inputs], builder.output(layer), options)

    return emit


def _pool(code: str) -> Callable[[TfliteBuilder, Layer], None]:
    def emit(builder: TfliteBuilder, layer: Layer) -> None:
        options = builder.schema.Pool2DOptionsT()
        options.filterHeight, options.filterWidth = layer.attributes["kernel"]
        options.strideH, options.strideW = layer.attributes["stride"]
        maxima = code == "MAX_POOL_2D"
        source, options.padding = _padded(builder, layer, layer.attributes["kernel"], maxima, counts=not maxima)
        builder.operator(code, (1, 2), [source], builder.output(layer), options)

    return emit


def _unary(
    code: str, versions: tuple[int, int], options: Callable[[Any, Layer], Any]
) -> Callable[[TfliteBuilder, Layer], None]:
    def emit(builder: TfliteBuilder, layer: Layer) -> None:
        inputs = [builder.index[layer.inputs[0]]]
        builder.operator(code, versions, inputs, builder.output(layer), options(builder.schema, layer))

    return emit


def _leaky_relu_options(schema: Any, layer: Layer) -> Any:
    options = schema.LeakyReluOptionsT()
    options.alpha = layer.attributes["slope"]
    return options


def _softmax_options(schema: Any, layer: Layer) -> Any:
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    return options


def _concat(builder: TfliteBuilder, layer: Layer) -> None:
    output = builder.network.tensors[layer.output]
    inputs = []
    for position, name in enumerate(layer.inputs):
        tensor = builder.network.tensors[name]
        inputs.append(builder.index[name])
        if tensor.grid != output.grid:
            inputs[-1] = builder.tensor(f"{layer.name}/input_{position}", channels_last(tensor.shape), output.grid)
            builder.operator("QUANTIZE", (1, 2), [builder.index[name]], inputs[-1], builder.schema.QuantizeOptionsT())
    options = builder.schema.ConcatenationOptionsT()
    options.axis = len(output.shape) - 1
    builder.operator("CONCATENATION", (1, 2), inputs, builder.output(layer), options)


def _slice(builder: TfliteBuilder, layer: Layer) -> None:
    shape = channels_last(builder.network.tensors[layer.inputs[0]].shape)
    starts, sizes = np.zeros(len(shape), np.int32), np.array(shape, np.int32)
    starts[-1], sizes[-1] = layer.attributes["start"], layer.attributes["end"] - layer.attributes["start"]
    inputs = [builder.index[layer.inputs[0]]]
    inputs += [builder.constant(f"{layer.name}/begin", starts), builder.constant(f"{layer.name}/size", sizes)]
    builder.operator("SLICE", (1, 2), inputs, builder.output(layer), builder.schema.SliceOptionsT())


def _channel_shuffle(builder: TfliteBuilder, layer: Layer) -> None:
    tensor, groups = builder.network.tensors[layer.output], layer.attributes["groups"]
    _, channels, height, width = tensor.shape
    # Height and width move together, so that the transpose is of four dimensions, the most XNNPACK likes.
    grouped, swapped = (1, height * width, groups, channels // groups), (1, height * width, channels // groups, groups)
    first = builder.tensor(f"{layer.name}/grouped", grouped, tensor.grid)
    builder.reshape(builder.index[layer.inputs[0]], first, grouped, f"{layer.name}/groups")
    second = builder.tensor(f"{layer.name}/swapped", swapped, tensor.grid)
    axes = builder.constant(f"{layer.name}/axes", np.array([0, 1, 3, 2], np.int32))
    builder.operator("TRANSPOSE", (1, 2), [first, axes], second, builder.schema.TransposeOptionsT())
    builder.reshape(second, builder.output(layer), channels_last(tensor.shape), f"{layer.name}/channels")


def _upsample(builder: TfliteBuilder, layer: Layer) -> None:
    _, _, height, width = builder.network.tensors[layer.output].shape
    size = builder.constant(f"{layer.name}/size", np.array([height, width], np.int32))
    options = builder.schema.ResizeNearestNeighborOptionsT()
    inputs = [builder.index[layer.inputs[0]], size]
    builder.operator("RESIZE_NEAREST_NEIGHBOR", (1, 2), inputs, builder.output(layer), options)


def _global_average_pool(builder: TfliteBuilder, layer: Layer) -> None:
    options = builder.schema.ReducerOptionsT()
    options.keepDims = layer.attributes["keepdim"]
    axes = builder.constant(f"{layer.name}/axes", np.array([1, 2], np.int32))
    builder.operator("MEAN", (1, 2), [builder.index[layer.inputs[0]], axes], builder.output(layer), options)


def _reshape(builder: TfliteBuilder, layer: Layer) -> None:
    (source,) = layer.inputs
    shape = builder.network.tensors[source].shape
    readers = {reader.kind for reader in builder.network.layers if layer.output in reader.inputs}
    if readers == {"linear"} and len(shape) == 4 and len(layer.attributes["shape"]) == 1:
        # A fully connected layer flattens its input itself; its columns follow TFLite's order of the elements.
        builder.index[layer.output] = builder.index[source]
        builder.flattened[layer.output] = shape[1:]
        return
    target = channels_last((1, *layer.attributes["shape"]))
    after = (1, *layer.attributes["shape"])
    keeps_channels = len(shape) == len(after) == 4 and shape[1] == after[1]
    if not keeps_channels and (_moved_order(shape) or _moved_order(after)):
        raise BuildError(
            f"{layer.name}: TFLite keeps channels last, so reshaping {shape} to {target} reorders elements"
        )
    builder.reshape(builder.index[source], builder.output(layer), target, f"{layer.name}/shape")


def _moved_order(shape: tuple[int, ...]) -> bool:
    """Whether channels last orders the elements of this shape differently than torch does."""
    return len(shape) == 4 and shape[1] > 1 and shape[2] * shape[3] > 1


def _border(code: str) -> Callable[[TfliteBuilder, Layer], None]:
    def emit(builder: TfliteBuilder, layer: Layer) -> None:
        kind = "QuantizeOptionsT" if code == "QUANTIZE" else "DequantizeOptionsT"
        inputs = [builder.index[layer.inputs[0]]]
        builder.operator(code, (1, 2), inputs, builder.output(layer), getattr(builder.schema, kind)())

    return emit


EMITTERS: dict[str, Callable[[TfliteBuilder, Layer], None]] = {
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
