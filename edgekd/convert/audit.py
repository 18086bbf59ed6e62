"""Is a file what its scheme's name says? Each rule looks at one way of not being it, and names the node."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.convert.graph import METADATA_NAME, Graph, GraphNode, GraphTensor, read_graph
from edgekd.convert.typed import TypedNode, typed_nodes
from edgekd.errors import BuildError
from edgekd.records import Audit, Finding, Scheme

MOST_WEIGHT_BYTES = 0.30
"""Weights of an integer scheme take at most this share of their size in float32."""
_SMALLEST_DUPLICATE = 256
"""Bytes below which two equal constants are chance or not worth a word."""

_COMPUTES_IN: dict[str, set[str]] = {
    "wi8_ai8": {"int8"},
    "wi8_ai8_symmetric": {"int8"},
    "wi8_ai16": {"int16"},
    "wi8": {"dynamic", "weight-only", "fp32"},
    "fp16": {"fp16", "fp32"},
    "fp32": {"fp32"},
}
_STATIC = {"wi8_ai8", "wi8_ai8_symmetric", "wi8_ai16"}
_SCHEME_OF = {
    "int8": "wi8_ai8",
    "int16": "wi8_ai16",
    "dynamic": "wi8",
    "weight-only": "wi8",
    "fp16": "fp16",
    "fp32": "fp32",
}
_TRANSPOSES = {"TRANSPOSE", "Transpose"}
_ACTIVATIONS = {"RELU", "RELU6", "RELU_N1_TO_1", "Relu", "Clip"}
_FUSES_ACTIVATION = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL", "SUB", "Conv", "Gemm", "Add"}
_PER_CHANNEL = {"CONV_2D", "DEPTHWISE_CONV_2D", "Conv", "QLinearConv"}


@dataclass(frozen=True)
class _Case:
    graph: Graph
    nodes: tuple[TypedNode, ...]
    claimed: Scheme
    per_channel: bool

    @property
    def computing(self) -> list[TypedNode]:
        """Operators that compute on numbers of the network."""
        return [entry for entry in self.nodes if not entry.is_quantize and entry.numeric != "index"]

    @property
    def claims_integers(self) -> bool:
        return self.claimed in _STATIC


def audit_file(path: Path, claimed: Scheme, per_channel: bool | None = None, sha256: str | None = None) -> Audit:
    """Compare a file with the scheme it claims.

    Args:
        path: a .tflite or .onnx file, ours or not.
        claimed: the scheme its name, or its giver, claims.
        per_channel: whether a scale per output channel is claimed; None takes the file's own word for it.
        sha256: the hash that was declared for the file, if any.

    Returns:
        The audit; `honest` is false where a finding of severity "error" makes the claim untrue.

    Raises:
        BuildError: the file cannot be read.
    """
    return audit_graph(read_graph(path), path, claimed, per_channel, sha256)


def audit_graph(
    graph: Graph, path: Path, claimed: Scheme, per_channel: bool | None = None, sha256: str | None = None
) -> Audit:
    """`audit_file` of the graph that was read from `path` already."""
    said = own_claims(graph)
    if per_channel is None:
        per_channel = said.get("weights") == "per_channel"
    case = _Case(graph, typed_nodes(graph), claimed, per_channel)
    findings = [finding for rule in _RULES for finding in rule(case)]
    findings += _declarations(path, said, claimed, sha256)
    weights = [entry.weight for entry in case.computing if entry.weight is not None]
    biases = [entry.bias for entry in case.computing if entry.bias is not None]
    return Audit(
        claimed_scheme=claimed,
        found_scheme=found_scheme(case.nodes),
        honest=not any(finding.severity == "error" for finding in findings),
        operators=dict(Counter(f"{entry.node.op}:{entry.numeric}" for entry in case.nodes)),
        weight_bytes=sum(_stored_bytes(tensor) for tensor in weights),
        parameters=sum(tensor.elements for tensor in (*weights, *biases)),
        findings=tuple(findings),
    )


def require_honest(path: Path, claimed: Scheme) -> Audit:
    """The file's audit.

    Raises:
        BuildError: the file is not what it claims; the message names the first nodes at fault.
    """
    audit = audit_file(path, claimed)
    if audit.honest:
        return audit
    errors = [finding for finding in audit.findings if finding.severity == "error"]
    named = "; ".join(f"{finding.node}: {finding.problem}" for finding in errors[:3])
    more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
    raise BuildError(f"{path} is not {claimed}, it is {audit.found_scheme}: {named}{more}")


def found_scheme(nodes: tuple[TypedNode, ...]) -> str:
    """The scheme that a file's operators amount to: a scheme's name, or the mixture that was found."""
    numerics = Counter(entry.numeric for entry in nodes if not entry.is_quantize and entry.numeric != "index")
    if not numerics:
        return "no operators"
    if "dynamic" in numerics or "weight-only" in numerics:
        if set(numerics) <= {"dynamic", "weight-only", "fp32"}:
            return "wi8"
    elif "fp16" in numerics and set(numerics) <= {"fp16", "fp32"}:
        return "fp16"
    if len(numerics) == 1:
        return _SCHEME_OF[next(iter(numerics))]
    return "mixed: " + ", ".join(f"{count} {numeric}" for numeric, count in numerics.most_common())


def own_claims(graph: Graph) -> dict[str, str]:
    """What an edgekd file says of itself in its metadata; nothing for other files."""
    try:
        said = json.loads(graph.metadata.get(METADATA_NAME, "{}"))
    except ValueError:
        return {"scheme": "unreadable metadata"}
    return {str(key): str(value) for key, value in said.items()} if isinstance(said, dict) else {}


def _declarations(path: Path, said: dict[str, str], claimed: Scheme, sha256: str | None) -> Iterator[Finding]:
    if "scheme" in said and said["scheme"] != claimed:
        yield Finding(node="metadata", problem=f"the file's own metadata says {said['scheme']}, not {claimed}")
    if sha256 is not None:
        actual = hashlib.sha256(path.read_bytes()).hexdigest()
        if actual != sha256:
            yield Finding(node="file", problem=f"its sha256 is {actual}, but {sha256} was declared")


def _stored_bytes(tensor: GraphTensor) -> int:
    return int(tensor.data.nbytes) if tensor.data is not None else 0


def _numeric_types(case: _Case) -> Iterator[Finding]:
    allowed = _COMPUTES_IN[case.claimed]
    for entry in case.computing:
        if entry.numeric not in allowed:
            yield Finding(node=entry.node.name, problem=_type_problem(case, entry))
    if case.claimed in ("wi8", "fp16") and case.computing and all(entry.numeric == "fp32" for entry in case.computing):
        yield Finding(
            node=case.computing[0].node.name, problem=f"every operator and weight is fp32, nothing is {case.claimed}"
        )


def _type_problem(case: _Case, entry: TypedNode) -> str:
    op = entry.node.op
    if not case.claims_integers:
        return f"{op} computes in {entry.numeric}, which {case.claimed} does not have"
    return {
        "fp32": f"{op} computes in float32: a float island",
        "fp16": f"{op} computes in float16: a float island",
        "dynamic": f"{op} quantizes its activations while running (dynamic range), not on a stored grid",
        "weight-only": f"{op} dequantizes its weights while running and computes in float32",
        "int16": f"{op} has int16 activations",
        "int8": f"{op} has int8 activations",
    }[entry.numeric]


def _quantize_nodes(case: _Case) -> Iterator[Finding]:
    """(De)quantize nodes that are neither at the boundary nor between integers."""
    if not case.claims_integers:
        return
    graph = case.graph
    for entry in case.nodes:
        if not entry.is_quantize:
            continue
        source, result = entry.node.inputs[0], entry.node.outputs[0]
        at_boundary = source in graph.inputs or result in graph.outputs
        between_integers = graph.tensors[result].dtype not in ("float32", "float16") and entry.numeric != "fp32"
        if not at_boundary and not between_integers:
            yield Finding(node=entry.node.name, problem=f"{entry.node.op} inside the graph, around operators in float")


def _float_weights(case: _Case) -> Iterator[Finding]:
    if case.claimed in ("fp32", "fp16"):
        return
    for entry in case.computing:
        if entry.weight is not None and entry.weight.dtype in ("float32", "float16", "float64"):
            size = _stored_bytes(entry.weight)
            yield Finding(node=entry.node.name, problem=f"weights are stored in {entry.weight.dtype} ({size} bytes)")


def _float_bias(case: _Case) -> Iterator[Finding]:
    # TensorRT takes float biases only, and ONNX knows no dequantized int64.
    float_by_design = case.claimed == "wi8_ai8_symmetric" or (
        case.claimed == "wi8_ai16" and case.graph.format == "onnx"
    )
    if not case.claims_integers or float_by_design:
        return
    for entry in case.computing:
        if entry.bias is not None and entry.bias.dtype.startswith("float"):
            yield Finding(node=entry.node.name, problem=f"the bias is left in {entry.bias.dtype}")


def _weight_size(case: _Case) -> Iterator[Finding]:
    if case.claimed in ("fp32", "fp16"):
        return
    weights = [entry.weight for entry in case.computing if entry.weight is not None]
    elements, stored = sum(tensor.elements for tensor in weights), sum(_stored_bytes(tensor) for tensor in weights)
    if elements and stored > MOST_WEIGHT_BYTES * 4 * elements:
        share = stored / (4 * elements)
        yield Finding(node="file", problem=f"weights take {share:.2f} of float32's bytes, over {MOST_WEIGHT_BYTES:.2f}")


def _duplicates(case: _Case) -> Iterator[Finding]:
    seen: dict[tuple[str, bytes], str] = {}
    for name, tensor in case.graph.tensors.items():
        if (
            tensor.data is None
            or tensor.data.nbytes < _SMALLEST_DUPLICATE
            or not np.any(tensor.data != tensor.data.flat[0])
        ):
            continue
        key = (tensor.dtype, hashlib.sha256(np.sort(tensor.data, axis=None).tobytes()).digest())
        if key in seen:
            yield Finding(node=name, problem=f"holds the same {tensor.data.nbytes} bytes of weights as {seen[key]}")
        seen.setdefault(key, name)


def _granularity(case: _Case) -> Iterator[Finding]:
    if not case.per_channel or not case.claims_integers:
        return
    for entry in case.computing:
        weight = entry.weight
        if weight is None or entry.node.op not in _PER_CHANNEL or weight.scales is None:
            continue
        channels = entry.bias.elements if entry.bias is not None else max(weight.shape[0], weight.shape[-1])
        if len(weight.scales) == 1 < channels:
            yield Finding(node=entry.node.name, problem=f"one weight scale for {channels} channels: per tensor")


def _stray_transposes(case: _Case) -> Iterator[Finding]:
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


def _unfused_activations(case: _Case) -> Iterator[Finding]:
    if not case.claims_integers:
        return
    producers, readers = case.graph.producers(), case.graph.readers()
    for entry in case.computing:
        if entry.node.op not in _ACTIVATIONS or _clips_integers(case.graph, entry.node):
            continue
        producer = producers.get(entry.node.inputs[0])
        while producer is not None and producer.op in ("QuantizeLinear", "DequantizeLinear"):
            producer = producers.get(producer.inputs[0])
        if producer is not None and producer.op in _FUSES_ACTIVATION and len(readers[producer.outputs[0]]) == 1:
            yield Finding(node=entry.node.name, problem=f"{entry.node.op} is not fused into {producer.name}")


def _clips_integers(graph: Graph, node: GraphNode) -> bool:
    """Whether an ONNX activation clips integers, behind its operator's quantize node, which onnxruntime can fuse."""
    return graph.format == "onnx" and graph.tensors[node.inputs[0]].dtype in ("uint8", "int8")


_RULES: tuple[Callable[[_Case], Iterator[Finding]], ...] = (
    _numeric_types,
    _quantize_nodes,
    _float_weights,
    _float_bias,
    _weight_size,
    _duplicates,
    _granularity,
    _stray_transposes,
    _unfused_activations,
)
