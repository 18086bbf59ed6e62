"""From a file's graph to the operator list that the cost models read."""

from __future__ import annotations

import math

from edgekd.convert.graph import Graph, GraphTensor
from edgekd.convert.typed import TypedNode, typed_nodes
from edgekd.core.operators import Operator, OperatorKind, OperatorList
from edgekd.errors import BuildError

_POOLS = {
    *("MEAN", "AVERAGE_POOL_2D", "MAX_POOL_2D"),
    *("GlobalAveragePool", "AveragePool", "MaxPool", "GlobalMaxPool", "ReduceMean"),
    *("com.microsoft.QLinearGlobalAveragePool", "com.microsoft.QLinearAveragePool"),
}
_ADDS = {"ADD", "Add", "com.microsoft.QLinearAdd"}
_DENSE = {"FULLY_CONNECTED", "Gemm", "MatMul", "BATCH_MATMUL", "QLinearMatMul", "com.microsoft.QGemm"}
_CONVOLUTIONS = {
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "Conv",
    "ConvTranspose",
    "QLinearConv",
    "ConvInteger",
}
_FREE = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
"""They change a shape and move nothing."""
_ACTIVATIONS = {"Relu", "Clip", "RELU", "RELU6"}
_PADDING = {"PAD", "PADV2", "Pad"}
"""Padding in front of a convolution belongs to it: XNNPACK computes the two as one, and ONNX writes them as one."""


def operators_of(graph: Graph) -> OperatorList:
    """What a runtime executes for one inference.

    (De)quantize nodes, reshapes and the padding of convolutions are no operators of their own.

    Raises:
        BuildError: the file does not say a tensor's shape, so that its operator's cost is unknown.
    """
    alias: dict[str, str] = {}

    def resolve(name: str) -> str:
        while name in alias:
            name = alias[name]
        return name

    operators: list[Operator] = []
    tensors: dict[str, int] = {name: graph.tensors[name].elements for name in graph.inputs}
    for entry in typed_nodes(graph):
        if not entry.outputs or (entry.numeric == "index" and not entry.is_quantize):
            continue
        if (
            entry.is_quantize
            or _is_fused_activation(graph, entry)
            or entry.node.op in _FREE
            or (entry.node.op in _PADDING and _feeds_convolution(graph, entry))
        ):
            alias[entry.outputs[0]] = entry.inputs[0]
            continue
        inputs = tuple(resolve(name) for name in entry.inputs)
        for name in entry.outputs:
            if not graph.tensors[name].shape:
                raise BuildError(f"{entry.node.name} ({entry.node.op}): the file does not say the shape of '{name}'")
            tensors[name] = graph.tensors[name].elements
        operators.append(_operator(graph, entry, inputs))
    return OperatorList(tuple(operators), tensors, graph.inputs, tuple(resolve(name) for name in graph.outputs))


def float_share(graph: Graph) -> float:
    """Share of a file's multiply-accumulates that are computed in float; 0 where it has none at all."""
    every, single = operators_of(graph), 0
    computed = {entry.outputs[0]: entry.numeric for entry in typed_nodes(graph) if entry.outputs}
    for operator in every.operators:
        single += operator.macs if computed[operator.output] in ("fp32", "fp16") else 0
    return single / every.macs if every.macs else 0.0


def _is_fused_activation(graph: Graph, entry: TypedNode) -> bool:
    """Whether an activation stands alone in the file only: runtimes compute it in the convolution before it."""
    if entry.node.op not in _ACTIVATIONS:
        return False
    source = entry.node.inputs[0]
    producer = graph.producers().get(source)
    return producer is not None and producer.op in _CONVOLUTIONS | _DENSE and len(graph.readers()[source]) == 1


def _feeds_convolution(graph: Graph, entry: TypedNode) -> bool:
    return all(reader.op in _CONVOLUTIONS for reader in graph.readers().get(entry.node.outputs[0], []))


def _operator(graph: Graph, entry: TypedNode, inputs: tuple[str, ...]) -> Operator:
    weights = entry.weight.elements if entry.weight is not None else 0
    biases = entry.bias.elements if entry.bias is not None else 0
    output = graph.tensors[entry.outputs[0]]
    kind = _kind(graph, entry)
    macs, taps = 0, 1
    if kind == "dense":
        rows = math.prod(output.shape[:-1]) if output.shape else 1
        macs = weights * max(rows, 1)
    elif kind in ("conv", "pointwise", "depthwise"):
        macs = weights * _positions(graph, output)
        taps = _taps(graph, entry)
    return Operator(entry.node.name, kind, macs, weights, biases, inputs, entry.outputs[0], taps)


def _taps(graph: Graph, entry: TypedNode) -> int:
    """Height times width of a convolution's kernel."""
    shape = entry.weight.shape if entry.weight is not None else ()
    return math.prod(shape[1:3] if graph.format == "tflite" else shape[2:])


def _positions(graph: Graph, output: GraphTensor) -> int:
    """How often a convolution's whole weight is applied: height times width of its output."""
    height, width = output.shape[1:3] if graph.format == "tflite" else output.shape[2:4]
    return max(height, 1) * max(width, 1)


def _kind(graph: Graph, entry: TypedNode) -> OperatorKind:
    op = entry.node.op
    if op in _ADDS:
        return "add"
    if op in _POOLS:
        return "pool"
    if op in _DENSE:
        return "dense"
    if op not in _CONVOLUTIONS or entry.weight is None:
        return "other"
    shape = entry.weight.shape
    if graph.format == "tflite":
        if op == "DEPTHWISE_CONV_2D":
            return "depthwise"
        channels = graph.tensors[entry.node.inputs[0]].shape[-1]
        return "pointwise" if shape[1:3] == (1, 1) and shape[3] == channels else "conv"
    groups = int(entry.node.attributes.get("group", 1))
    if groups > 1 and shape[1] == 1:
        return "depthwise"
    return "pointwise" if all(size == 1 for size in shape[2:]) and groups == 1 else "conv"
