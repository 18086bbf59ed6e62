"""What TensorRT's ONNX parser refuses or does not accelerate of a quantized graph. Rules, because it needs a GPU.

Sources: "Working with Quantized Types" of TensorRT's documentation (symmetric only, signed INT8, scales per channel
for weights and per tensor for activations, weight-only quantization in INT4 only); onnx-tensorrt's docs/operators.md
(zero points must be 0; QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger and DynamicQuantizeLinear are not
supported; convolutions and pools of two or three dimensions); NVIDIA/TensorRT issue 2774 ("only supports symmetric
quantization"); onnx-tensorrt issue 850 and onnxruntime issue 14229 (int32 biases through DequantizeLinear: "only
activation types allowed").
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekd.convert.graph import Graph, GraphNode
from edgekd.convert.typed import TypedNode

_UNSUPPORTED = {
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantizeLinear",
}
_SPATIAL = {"Conv", "ConvTranspose", "MaxPool", "AveragePool"}


def refused_by_tensorrt(graph: Graph, nodes: tuple[TypedNode, ...], answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Nodes that break a rule, with the rule; `answer` is empty, as nothing is asked."""
    found = []
    for node in graph.nodes:
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            found += [(node.name, problem) for problem in _quantization_problems(graph, node)]
        elif node.op in _UNSUPPORTED or node.op.startswith("com.microsoft."):
            found.append((node.name, f"TensorRT has no {node.op}: it takes QuantizeLinear and DequantizeLinear only"))
        elif node.op in _SPATIAL and len(graph.tensors[node.inputs[0]].shape) == 3:
            found.append((node.name, f"{node.op} over one dimension: TensorRT has those of two and three"))
    found += [
        (entry.node.name, f"{entry.node.op} is computed in float: TensorRT takes int8 weights with int8 inputs only")
        for entry in nodes
        if entry.numeric == "weight-only" and entry.weight is not None and entry.weight.dtype == "int8"
    ]
    return found


def _quantization_problems(graph: Graph, node: GraphNode) -> list[str]:
    integers = node.outputs[0] if node.op == "QuantizeLinear" else node.inputs[0]
    tensor = graph.tensors[integers]
    stored = graph.constant(node.inputs[0])
    if tensor.dtype == "int32":
        return ["int32 through DequantizeLinear (a bias): TensorRT takes float biases only"]
    problems = []
    if tensor.dtype not in ("int8", "int4"):
        problems.append(f"{tensor.dtype} values")
    scales, *zero_points = (graph.tensors[name].data for name in node.inputs[1:3] if name)
    if any(values is not None and np.any(values) for values in zero_points):
        problems.append("a zero point other than 0")
    if scales is not None and scales.size > 1 and not stored:
        problems.append("several scales on an activation")
    return [f"{' and '.join(problems)}: TensorRT takes int8 around 0 with one scale"] if problems else []
