"""Rules of the audit about the graph: what is stored twice, moved for nothing, or left unfused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from edgekd.convert.audit_case import Case
from edgekd.convert.graph import Graph, GraphNode
from edgekd.records import Finding

_SMALLEST_DUPLICATE = 256
"""Bytes below which two equal constants are chance or not worth a word."""
_TRANSPOSES = {"TRANSPOSE", "Transpose"}
_ACTIVATIONS = {"RELU", "RELU6", "RELU_N1_TO_1", "Relu", "Clip"}
_FUSES_ACTIVATION = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL", "SUB", "Conv", "Gemm", "Add"}


def _duplicates(case: Case) -> Iterator[Finding]:
    seen: dict[tuple[str, bytes], str] = {}
    buffers: set[int] = set()
    for name, tensor in case.graph.tensors.items():
        if (
            tensor.data is None
            or tensor.data.nbytes < _SMALLEST_DUPLICATE
            or not np.any(tensor.data != tensor.data.flat[0])
            or tensor.buffer in buffers
        ):
            continue
        if tensor.buffer is not None:
            buffers.add(tensor.buffer)
        key = (tensor.dtype, hashlib.sha256(np.sort(tensor.data, axis=None).tobytes()).digest())
        if key in seen:
            yield Finding(node=name, problem=f"holds the same {tensor.data.nbytes} bytes of weights as {seen[key]}")
        seen.setdefault(key, name)


def _unread_constants(case: Case) -> Iterator[Finding]:
    """Weights that no operator reads: the float ones of before, left in a file of integers."""
    if not case.claims_integers:
        return
    read = {name for node in case.graph.nodes for name in node.inputs} | set(case.graph.outputs)
    for name, tensor in case.graph.tensors.items():
        if tensor.data is None or name in read or tensor.data.nbytes < _SMALLEST_DUPLICATE:
            continue
        if tensor.dtype.startswith("float"):
            yield Finding(node=name, problem=f"{tensor.data.nbytes} bytes of {tensor.dtype} that no operator reads")


def _stray_transposes(case: Case) -> Iterator[Finding]:
    """Transposes whose effects cancel, with nothing between them that cares about the order of the axes."""
    readers = case.graph.readers()
    for node in case.graph.nodes:
        if node.op not in _TRANSPOSES:
            continue
        current = node
        while True:
            following = readers.get(current.outputs[0], []) if current.outputs else []
            if len(following) != 1:
                break
            current = following[0]
            if current.op in _TRANSPOSES:
                first, second = _permutation(case.graph, node), _permutation(case.graph, current)
                if first and second and [first[axis] for axis in second] == list(range(len(first))):
                    yield Finding(node=node.name, problem=f"{node.op} is undone by {current.name}: a stray pair")
                break
            if len([name for name in current.inputs if name and not _stored(case.graph, name)]) != 1 or _ordered(
                current
            ):
                break


def _stored(graph: Graph, name: str) -> bool:
    return graph.constant(name)


def _ordered(node: GraphNode) -> bool:
    """Whether an operator's meaning depends on the order of the axes."""
    indifferent = {"QUANTIZE", "DEQUANTIZE", "RELU", "RELU6", "LOGISTIC", "HARD_SWISH", "TANH", "MUL", "ADD"}
    return node.op not in indifferent | {
        "QuantizeLinear",
        "DequantizeLinear",
        "Relu",
        "Clip",
        "Sigmoid",
        "HardSwish",
        "Tanh",
    }


def _permutation(graph: Graph, node: GraphNode) -> list[int] | None:
    if "perm" in node.attributes:
        return [int(axis) for axis in node.attributes["perm"]]
    if len(node.inputs) > 1 and graph.tensors[node.inputs[1]].data is not None:
        return [int(axis) for axis in np.asarray(graph.tensors[node.inputs[1]].data).tolist()]
    return None


def _unfused_activations(case: Case) -> Iterator[Finding]:
    if not case.claims_integers:
        return
    producers, readers = case.graph.producers(), case.graph.readers()
    for entry in case.computing:
        if entry.node.op not in _ACTIVATIONS or _clips_integers(case.graph, entry.node):
            continue
        # ONNX has no fused activations for floats, whose kernels runtimes fuse by themselves.
        if case.claimed == "wi8_ai8_mixed" and entry.numeric == "fp32":
            continue
        producer = producers.get(entry.node.inputs[0])
        while producer is not None and producer.op in ("QuantizeLinear", "DequantizeLinear"):
            producer = producers.get(producer.inputs[0])
        if producer is not None and producer.op in _FUSES_ACTIVATION and len(readers[producer.outputs[0]]) == 1:
            yield Finding(node=entry.node.name, problem=f"{entry.node.op} is not fused into {producer.name}")


def _clips_integers(graph: Graph, node: GraphNode) -> bool:
    """Whether an ONNX activation clips integers, behind its operator's quantize node, which onnxruntime can fuse."""
    return graph.format == "onnx" and graph.tensors[node.inputs[0]].dtype in ("uint8", "int8")


STRUCTURE_RULES = (_duplicates, _unread_constants, _stray_transposes, _unfused_activations)
