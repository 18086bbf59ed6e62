"""Is a file what its scheme's name says? Each rule looks at one way of not being it, and names the node."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from edgekd.convert.audit_case import UNREADABLE, Case, own_claims, stored_bytes
from edgekd.convert.audit_numbers import NUMBER_RULES
from edgekd.convert.audit_structure import STRUCTURE_RULES
from edgekd.convert.graph import Graph
from edgekd.convert.model_file import read_graph
from edgekd.convert.typed import TypedNode, typed_nodes
from edgekd.errors import BuildError
from edgekd.records import Audit, Finding, Scheme

_SCHEME_OF = {
    "int8": "wi8_ai8",
    "int16": "wi8_ai16",
    "dynamic": "wi8",
    "weight-only": "wi8",
    "fp16": "fp16",
    "fp32": "fp32",
}


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
    case = Case(graph, typed_nodes(graph), claimed, per_channel)
    findings = [finding for rule in (*NUMBER_RULES, *STRUCTURE_RULES) for finding in rule(case)]
    findings += _declarations(path, said, claimed, sha256)
    weights = [entry.weight for entry in case.computing if entry.weight is not None]
    biases = [entry.bias for entry in case.computing if entry.bias is not None]
    return Audit(
        claimed_scheme=claimed,
        found_scheme=found_scheme(case.nodes),
        honest=not any(finding.severity == "error" for finding in findings),
        operators=dict(Counter(f"{entry.node.op}:{entry.numeric}" for entry in case.nodes)),
        weight_bytes=sum(stored_bytes(tensor) for tensor in weights),
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
    raise BuildError(f"{path.name} is not {claimed}, it is {audit.found_scheme}: {named}{more}")


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


def _declarations(path: Path, said: dict[str, str], claimed: Scheme, sha256: str | None) -> Iterator[Finding]:
    if "scheme" in said and said["scheme"] != claimed:
        known = "cannot be read" if said["scheme"] == UNREADABLE else f"says {said['scheme']}, not {claimed}"
        yield Finding(node="metadata", problem=f"the file's own metadata {known}")
    if sha256 is not None:
        actual = hashlib.sha256(path.read_bytes()).hexdigest()
        if actual != sha256:
            yield Finding(node="file", problem=f"not the declared file: its sha256 is {actual}, declared is {sha256}")
