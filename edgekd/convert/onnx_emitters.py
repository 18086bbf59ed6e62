"""How each layer is written in ONNX: one function per kind, from the layer's attributes to nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgekd.convert.onnx_builder import OnnxBuilder
from edgekd.convert.onnx_composites import (
    emit_attention,
    emit_bilinear,
    emit_constant,
    emit_depth_to_space,
    emit_embedding,
    emit_gelu,
    emit_layer_norm,
    emit_permute,
    emit_tanh,
)
from edgekd.nn.quantized.network import Layer


def _conv(builder: OnnxBuilder, layer: Layer) -> None:
    attributes = layer.attributes
    assert layer.weight is not None
    top, bottom, left, right = attributes["padding"]
    value = builder.node(
        "Conv",
        builder.weighted_inputs(layer),
        f"{layer.output}/conv",
        kernel_shape=layer.weight.shape[2:],
        strides=attributes["stride"],
        pads=[top, left, bottom, right],
        dilations=attributes["dilation"],
        group=attributes["groups"],
    )
    builder.finish_layer(layer, value)


def _linear(builder: OnnxBuilder, layer: Layer) -> None:
    inputs = builder.weighted_inputs(layer)
    builder.finish_layer(layer, builder.node("Gemm", inputs, f"{layer.output}/gemm", transB=1))


def _simple(kind: str, **attributes: Any) -> Callable[[OnnxBuilder, Layer], None]:
    """A node over the layer's inputs with attributes that do not depend on the layer."""

    def emit(builder: OnnxBuilder, layer: Layer) -> None:
        inputs = [builder.values[name] for name in layer.inputs]
        builder.finish_layer(layer, builder.node(kind, inputs, f"{layer.output}/{kind.lower()}", **attributes))

    return emit


def _pool(kind: str, **attributes: Any) -> Callable[[OnnxBuilder, Layer], None]:
    def emit(builder: OnnxBuilder, layer: Layer) -> None:
        top, bottom, left, right = layer.attributes["padding"]
        value = builder.node(
            kind,
            [builder.values[layer.inputs[0]]],
            f"{layer.output}/{kind.lower()}",
            kernel_shape=layer.attributes["kernel"],
            strides=layer.attributes["stride"],
            pads=[top, left, bottom, right],
            **attributes,
        )
        builder.finish_layer(layer, value)

    return emit


def _leaky_relu(builder: OnnxBuilder, layer: Layer) -> None:
    inputs = [builder.values[layer.inputs[0]]]
    value = builder.node("LeakyRelu", inputs, f"{layer.output}/leaky_relu", alpha=layer.attributes["slope"])
    builder.finish_layer(layer, value)


def _slice(builder: OnnxBuilder, layer: Layer) -> None:
    bounds = {"starts": layer.attributes["start"], "ends": layer.attributes["end"], "axes": 1}
    inputs = [builder.values[layer.inputs[0]]]
    inputs += [
        builder.constant(f"{layer.output}/{name}", np.array([value], np.int64)) for name, value in bounds.items()
    ]
    builder.finish_layer(layer, builder.node("Slice", inputs, f"{layer.output}/slice"))


def _channel_shuffle(builder: OnnxBuilder, layer: Layer) -> None:
    tensor, groups = builder.network.tensors[layer.output], layer.attributes["groups"]
    _, channels, height, width = tensor.shape
    grouped = np.array([1, groups, channels // groups, height * width], np.int64)
    shape = builder.constant(f"{layer.output}/groups", grouped)
    value = builder.node("Reshape", [builder.values[layer.inputs[0]], shape], f"{layer.output}/grouped")
    value = builder.between(value, f"{layer.output}/grouped", tensor.grid)
    value = builder.node("Transpose", [value], f"{layer.output}/swapped", perm=[0, 2, 1, 3])
    value = builder.between(value, f"{layer.output}/swapped", tensor.grid)
    shape = builder.constant(f"{layer.output}/channels", np.array(tensor.shape, np.int64))
    builder.finish_layer(layer, builder.node("Reshape", [value, shape], f"{layer.output}/shuffled"))


def _upsample(builder: OnnxBuilder, layer: Layer) -> None:
    factors = builder.constant(f"{layer.output}/factors", np.array([1, 1, *layer.attributes["factor"]], np.float32))
    value = builder.node(
        "Resize",
        [builder.values[layer.inputs[0]], "", factors],
        f"{layer.output}/resize",
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    builder.finish_layer(layer, value)


def _global_average_pool(builder: OnnxBuilder, layer: Layer) -> None:
    value = builder.node("GlobalAveragePool", [builder.values[layer.inputs[0]]], f"{layer.output}/pool")
    if not layer.attributes["keepdim"]:
        value = builder.between(value, f"{layer.output}/pooled", builder.network.tensors[layer.output].grid)
        value = builder.node("Flatten", [value], f"{layer.output}/flat")
    builder.finish_layer(layer, value)


def _reshape(builder: OnnxBuilder, layer: Layer) -> None:
    shape = builder.constant(f"{layer.output}/shape", np.array([1, *layer.attributes["shape"]], np.int64))
    value = builder.node("Reshape", [builder.values[layer.inputs[0]], shape], f"{layer.output}/reshaped")
    builder.finish_layer(layer, value)


def _dequantize(builder: OnnxBuilder, layer: Layer) -> None:
    # Every value on a grid has its dequantize node already.
    builder.publish(layer, builder.values[layer.inputs[0]])


def _quantize(builder: OnnxBuilder, layer: Layer) -> None:
    builder.finish_layer(layer, builder.values[layer.inputs[0]])


EMITTERS: dict[str, Callable[[OnnxBuilder, Layer], None]] = {
    "conv": _conv,
    "linear": _linear,
    "add": _simple("Add"),
    "mul": _simple("Mul"),
    "max_pool": _pool("MaxPool"),
    "average_pool": _pool("AveragePool", count_include_pad=1),
    "sigmoid": _simple("Sigmoid"),
    "hardswish": _simple("HardSwish"),
    "leaky_relu": _leaky_relu,
    "softmax": _simple("Softmax", axis=1),
    "concat": _simple("Concat", axis=1),
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
    "tanh": emit_tanh,
    "gelu": emit_gelu,
    "layer_norm": emit_layer_norm,
    "attention": emit_attention,
    "quantize": _quantize,
    "dequantize": _dequantize,
}
