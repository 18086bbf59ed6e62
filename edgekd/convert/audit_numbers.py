"""Rules of the audit about numbers: what operators compute in, and what weights and biases are stored in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgekd.convert.audit_case import Case, own_claims, stored_bytes
from edgekd.convert.typed import TypedNode
from edgekd.records import Finding

MOST_WEIGHT_BYTES = 0.30
"""Weights of an integer scheme take at most this share of their size in float32."""
_COMPUTES_IN: dict[str, set[str]] = {
    "wi8_ai8": {"int8"},
    "wi8_ai8_mixed": {"int8", "fp32"},
    "wi8_ai8_symmetric": {"int8"},
    "wi8_ai16": {"int16"},
    "wi8": {"dynamic", "weight-only", "fp32"},
    "fp16": {"fp16", "fp32"},
    "fp32": {"fp32"},
}
_PER_CHANNEL = {"CONV_2D", "DEPTHWISE_CONV_2D", "Conv", "QLinearConv"}


def _numeric_types(case: Case) -> Iterator[Finding]:
    allowed = _COMPUTES_IN[case.claimed]
    for entry in case.computing:
        if entry.numeric not in allowed:
            yield Finding(node=entry.node.name, problem=_type_problem(case, entry))
    if case.claimed in ("wi8", "fp16") and case.computing and all(entry.numeric == "fp32" for entry in case.computing):
        yield Finding(
            node=case.computing[0].node.name, problem=f"every operator and weight is fp32, nothing is {case.claimed}"
        )


def _type_problem(case: Case, entry: TypedNode) -> str:
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


def _quantize_nodes(case: Case) -> Iterator[Finding]:
    """(De)quantize nodes that are neither at the boundary nor between integers."""
    if not case.claims_integers or case.claimed == "wi8_ai8_mixed":
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


def _kept_in_float(case: Case) -> Iterator[Finding]:
    """A mixed file computes in both, and its metadata, where it has any, names what is kept in float."""
    if case.claimed != "wi8_ai8_mixed":
        return
    for numeric in ("int8", "fp32"):
        if all(entry.numeric != numeric for entry in case.computing):
            yield Finding(node="file", problem=f"nothing computes in {numeric}, so it is not mixed")
    said = own_claims(case.graph)
    if "scheme" not in said:
        return
    keys = {name.split(":")[0] for name in said.get("kept_in_float", "").split(", ")}
    for entry in case.computing:
        if entry.numeric == "fp32" and re.split("[/:]", entry.node.name)[0] not in keys:
            yield Finding(
                node=entry.node.name, problem=f"{entry.node.op} computes in float32, but the metadata does not say so"
            )


def _float_weights(case: Case) -> Iterator[Finding]:
    if case.claimed in ("fp32", "fp16", "wi8_ai8_mixed"):
        return
    for entry in case.computing:
        if entry.weight is not None and entry.weight.dtype in ("float32", "float16", "float64"):
            size = stored_bytes(entry.weight)
            yield Finding(node=entry.node.name, problem=f"weights are stored in {entry.weight.dtype} ({size} bytes)")


def _float_bias(case: Case) -> Iterator[Finding]:
    # TensorRT takes float biases only, and ONNX knows no dequantized int64.
    float_by_design = case.claimed == "wi8_ai8_symmetric" or (
        case.claimed == "wi8_ai16" and case.graph.format == "onnx"
    )
    if not case.claims_integers or float_by_design:
        return
    for entry in case.computing:
        kept = case.claimed == "wi8_ai8_mixed" and entry.numeric == "fp32"
        if not kept and entry.bias is not None and entry.bias.dtype.startswith("float"):
            yield Finding(node=entry.node.name, problem=f"the bias is left in {entry.bias.dtype}")


def _weight_size(case: Case) -> Iterator[Finding]:
    if case.claimed in ("fp32", "fp16"):
        return
    mixed = case.claimed == "wi8_ai8_mixed"
    counted = [entry for entry in case.computing if not (mixed and entry.numeric == "fp32")]
    weights = [entry.weight for entry in counted if entry.weight is not None]
    elements, stored = sum(tensor.elements for tensor in weights), sum(stored_bytes(tensor) for tensor in weights)
    if elements and stored > MOST_WEIGHT_BYTES * 4 * elements:
        share = stored / (4 * elements)
        yield Finding(node="file", problem=f"weights take {share:.2f} of float32's bytes, over {MOST_WEIGHT_BYTES:.2f}")


def _granularity(case: Case) -> Iterator[Finding]:
    if not case.per_channel or not case.claims_integers:
        return
    for entry in case.computing:
        weight = entry.weight
        if weight is None or entry.node.op not in _PER_CHANNEL or weight.scales is None:
            continue
        channels = entry.bias.elements if entry.bias is not None else max(weight.shape[0], weight.shape[-1])
        if len(weight.scales) == 1 < channels:
            yield Finding(node=entry.node.name, problem=f"one weight scale for {channels} channels: per tensor")


NUMBER_RULES = (
    _numeric_types,
    _quantize_nodes,
    _kept_in_float,
    _float_weights,
    _float_bias,
    _weight_size,
    _granularity,
)
