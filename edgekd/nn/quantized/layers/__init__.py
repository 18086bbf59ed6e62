"""Fake-quantized layers, by kind. A new one is a class here, a rule in `rules`, and an emitter per file format."""

from edgekd.nn.quantized.layers.arithmetic import QuantizedAdd, QuantizedMultiply
from edgekd.nn.quantized.layers.base import QuantizedLayer
from edgekd.nn.quantized.layers.movement import (
    ChannelShuffle,
    Concatenation,
    Constant,
    DepthToSpace,
    Permute,
    Reshape,
    Slice,
    Upsample,
    UpsampleBilinear,
)
from edgekd.nn.quantized.layers.nonlinear import Gelu, HardSwish, LeakyRelu, Sigmoid, Softmax, Tanh
from edgekd.nn.quantized.layers.pooling import AveragePool, GlobalAveragePool, MaxPool
from edgekd.nn.quantized.layers.tokens import Attention, Embedding, LayerNorm
from edgekd.nn.quantized.layers.weighted import QuantizedConv, QuantizedLinear, WeightedLayer

LAYERS: dict[str, type[QuantizedLayer]] = {
    layer.kind: layer
    for layer in (
        *(QuantizedConv, QuantizedLinear, QuantizedAdd, QuantizedMultiply),
        *(GlobalAveragePool, AveragePool, MaxPool, HardSwish, LeakyRelu, Sigmoid, Softmax, Tanh, Gelu),
        *(Reshape, Concatenation, Slice, ChannelShuffle, Upsample, UpsampleBilinear, DepthToSpace, Permute, Constant),
        *(LayerNorm, Attention, Embedding),
    )
}

__all__ = ["LAYERS", "QuantizedLayer", "WeightedLayer"]
