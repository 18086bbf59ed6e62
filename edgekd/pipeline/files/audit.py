"""`edgekd audit`: is a model file what it claims to be, whoever made it?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from edgekd.convert.acceleration import RUNTIMES, acceleration
from edgekd.convert.audit import audit_graph, found_scheme
from edgekd.convert.audit_case import own_claims
from edgekd.convert.graph import Graph
from edgekd.convert.model_file import format_of
from edgekd.convert.typed import TypedNode, typed_nodes
from edgekd.errors import ConfigurationError
from edgekd.pipeline.files.graph import graph_of
from edgekd.records import Accelerated, Finding, Format, InferenceRuntime, Record, Scheme
from edgekd.store import hash_file

RuntimeChoice = Literal["all", "tflite", "onnxruntime", "tensorrt", "none"]
ClaimSource = Literal["flag", "report", "metadata", "name", "operators"]

_SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
_VAGUE: dict[str, Scheme] = {"(quantized|quant|qdq)": "wi8_ai8", "half": "fp16"}
"""Words that may mean something else too: they say what a file is only where nothing else does."""
_IN_NAMES: tuple[tuple[str, Scheme], ...] = (
    *((scheme.replace("_", "[_-]"), scheme) for scheme in sorted(_SCHEMES, key=len, reverse=True)),
    ("(int16x8|16x8|int16)", "wi8_ai16"),
    ("(dynamic([_-]range)?|dynamic[_-]int8|weight[_-]only)", "wi8"),
    ("(int8|i8|uint8)", "wi8_ai8"),
    ("float16", "fp16"),
    ("float32", "fp32"),
    *_VAGUE.items(),
)
"""What a file's name may say, the more specific first; each a word of its own in the name."""
_UNMISTAKABLE = tuple(entry for entry in _IN_NAMES if entry[0] not in _VAGUE)
_REPORTS = ("report.json", "quantize.json")
_BY_NUMERIC: dict[str, Scheme] = {
    "int8": "wi8_ai8",
    "int16": "wi8_ai16",
    "dynamic": "wi8",
    "weight-only": "wi8",
    "fp16": "fp16",
    "fp32": "fp32",
}


class AuditedFile(Record):
    """What `edgekd audit` found. `scheme` is the claim, and `scheme_source` who made it.

    A claim comes from `--scheme`, else from the `report.json` or `quantize.json` beside the file, else from the file's
    own metadata, else from its name (`model_int8.tflite`). Where the name says something else than report or metadata,
    the one that is not true is the claim. A file that claims nothing is held against what most of its operators are
    ("operators"). `found_scheme` is what its operators amount to. `accelerated` says, per runtime, what it does not
    accelerate: that makes no lie, and the verdict does not depend on it.
    """

    schema_version: Literal[1] = 1
    file: str
    format: Format
    sha256: str
    size_bytes: int
    scheme: Scheme
    scheme_source: ClaimSource
    found_scheme: str
    verdict: Literal["honest", "dishonest"]
    findings: tuple[Finding, ...]
    accelerated: tuple[Accelerated, ...] = ()
    operators: dict[str, int]
    weight_bytes: int
    parameters: int


def audit(path: Path, scheme: Scheme | None, runtime: RuntimeChoice = "all") -> AuditedFile:
    """Hold a .tflite or .onnx file against the scheme it claims, and ask what runtimes make of it; nothing is inferred.

    Args:
        path: the file, ours or not.
        scheme: the claim; None looks for one as `AuditedFile` says.
        runtime: whose acceleration to look at; `all` takes every one that runs the file's format.

    Raises:
        ConfigurationError: the file is missing, or is no .tflite or .onnx that can be read, or no file of a runtime.
        MissingExtraError: what reads that format is not installed.
    """
    graph = graph_of(path)
    declared = _declared(path)
    claim, source = _claim(path, graph, scheme, declared.get("scheme"))
    found = audit_graph(graph, path, claim, sha256=declared.get("sha256"))
    speeds = [acceleration(graph, path, chosen) for chosen in _runtimes(path, runtime)]
    return AuditedFile(
        file=str(path),
        format=format_of(path),
        sha256=hash_file(path),
        size_bytes=path.stat().st_size,
        scheme=claim,
        scheme_source=source,
        found_scheme=found.found_scheme,
        verdict="honest" if found.honest else "dishonest",
        findings=found.findings,
        accelerated=tuple(speeds),
        operators=found.operators,
        weight_bytes=found.weight_bytes,
        parameters=found.parameters,
    )


def _runtimes(path: Path, wanted: RuntimeChoice) -> tuple[InferenceRuntime, ...]:
    fitting = RUNTIMES[format_of(path)]
    if wanted in ("all", "none"):
        return fitting if wanted == "all" else ()
    if wanted not in fitting:
        raise ConfigurationError(f"{path}: {wanted} runs no {path.suffix} files; ask for {' or '.join(fitting)}")
    return (wanted,)


def _declared(path: Path) -> dict[str, str]:
    """What the report beside the file, of a run or of `edgekd quantize`, declares for it; nothing where none does."""
    for name in _REPORTS:
        try:
            artifacts = json.loads((path.parent / name).read_text("utf-8"))["artifacts"]
            entries = {entry["path"]: entry for entry in artifacts}
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if path.name in entries:
            return {key: str(entries[path.name][key]) for key in ("scheme", "sha256") if key in entries[path.name]}
    return {}


def _claim(path: Path, graph: Graph, given: str | None, declared: str | None) -> tuple[Scheme, ClaimSource]:
    said: list[tuple[str | None, ClaimSource]] = [
        (given, "flag"),
        (declared, "report"),
        (own_claims(graph).get("scheme"), "metadata"),
        (scheme_in_name(path.stem), "name"),
    ]
    found = next(((scheme, source) for one, source in said for scheme in _SCHEMES if scheme == one), None)
    nodes = typed_nodes(graph)
    if found is None:
        return _of_operators(nodes), "operators"
    named = _schemes_in_name(path.stem, _UNMISTAKABLE)
    if found[1] in ("report", "metadata") and named and not any(_meets(found[0], one) for one in named):
        # One of the two lies; the file is held against the one that its operators do not bear out.
        return found if found_scheme(nodes) in named else (named[0], "name")
    return found


def _meets(scheme: Scheme, named: Scheme) -> bool:
    """Whether a file of a scheme may be called by another's name: what TensorRT takes is int8 from end to end too.

    A mixed file may not be called int8: some of its layers are in float.
    """
    return scheme == named or (scheme, named) == ("wi8_ai8_symmetric", "wi8_ai8")


def scheme_in_name(stem: str) -> Scheme | None:
    """The scheme that a file's name claims, or None: `mobilenet_int8` is `wi8_ai8`."""
    return next(iter(_schemes_in_name(stem, _IN_NAMES)), None)


def _schemes_in_name(stem: str, patterns: tuple[tuple[str, Scheme], ...]) -> list[Scheme]:
    found, rest = [], stem.lower()
    for pattern, scheme in patterns:
        # Taken out of the name, so that wi8_ai8_mixed is not wi8_ai8 as well.
        rest, count = re.subn(rf"(?<![a-z0-9]){pattern}(?![a-z0-9])", "/", rest)
        if count:
            found.append(scheme)
    return found


def _of_operators(nodes: tuple[TypedNode, ...]) -> Scheme:
    amounts_to = found_scheme(nodes)
    for scheme in _SCHEMES:
        if scheme == amounts_to:
            return scheme
    counted = [entry.numeric for entry in _computing(nodes)]
    most = max(sorted(set(counted)), key=counted.count, default="fp32")
    return _BY_NUMERIC[most]


def _computing(nodes: tuple[TypedNode, ...]) -> Iterator[TypedNode]:
    return (entry for entry in nodes if not entry.is_quantize and entry.numeric != "index")
