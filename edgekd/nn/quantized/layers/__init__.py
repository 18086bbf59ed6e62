"""Fake-quantized layers, by kind. A new one is a class here, a rule in `rules`, and an emitter per file format."""

from edgekd.nn.quantized.layers.arithmetic import QuantizedAdd, QuantizedMultiply
from edgekd.nn.quantized.layers.base import QuantizedLayer
from edgekd.nn.quantized.layers.movement import ChannelShuffle, Concatenation, Reshape, Slice, Upsample
from edgekd.nn.quantized.layers.nonlinear import HardSwish, LeakyRelu, Sigmoid, Softmax
from edgekd.nn.quantized.layers.pooling import AveragePool, GlobalAveragePool, MaxPool
from edgekd.nn.quantized.layers.weighted import QuantizedConv, QuantizedLinear, WeightedLayer

LAYERS: dict[str, type[QuantizedLayer]] = {
    layer.kind: layer
    for layer in (
        *(QuantizedConv, QuantizedLinear, QuantizedAdd, QuantizedMultiply),
        *(GlobalAveragePool, AveragePool, MaxPool, HardSwish, LeakyRelu, Sigmoid, Softmax),
        *(Reshape, Concatenation, Slice, ChannelShuffle, Upsample),
    )
}

__all__ = ["LAYERS", "QuantizedLayer", "WeightedLayer"]
