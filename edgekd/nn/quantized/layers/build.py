"""A layer for each operation of a trace."""

from __future__ import annotations

from edgekd.nn.quantized.layers import LAYERS, QuantizedLayer, WeightedLayer
from edgekd.nn.quantized.layers.movement import Constant
from edgekd.nn.quantized.layers.tokens import Embedding, LayerNorm
from edgekd.nn.quantized.operations import Operation
from edgekd.nn.quantized.scheme import SchemeSpec


def built_layer(operation: Operation, scheme: SchemeSpec) -> QuantizedLayer:
    """The layer of one operation, with its parameters."""
    kind = LAYERS[operation.kind]
    if issubclass(kind, WeightedLayer):
        return kind(
            operation.parameters["weight"],
            operation.parameters.get("bias"),
            scheme,
            activation=operation.activation,
            **operation.attributes,
        )
    if issubclass(kind, LayerNorm):
        weight, bias = (operation.parameters.get(name) for name in ("weight", "bias"))
        return kind(operation.shape[1], weight, bias, **operation.attributes)
    if issubclass(kind, Embedding):
        return kind(operation.parameters["weight"])
    if issubclass(kind, Constant):
        return kind(operation.parameters["value"])
    return kind(activation=operation.activation, **operation.attributes)
