"""A built file and what was checked of it."""

from __future__ import annotations

from typing import Literal

from edgekd.records.base import NonNegative, PositiveInt, Record, Sha256

Format = Literal["torch", "tflite", "onnx"]
Scheme = Literal["wi8_ai8", "wi8_ai8_mixed", "wi8_ai8_symmetric", "wi8_ai16", "wi8", "fp16", "fp32"]
INT8_SCHEMES: tuple[Scheme, ...] = ("wi8_ai8", "wi8_ai8_mixed")
"""Schemes of the student that every runtime but TensorRT is given: all of int8, or with some layers in float."""
InferenceRuntime = Literal["tflite", "onnxruntime", "tensorrt"]


class Finding(Record):
    """A node of a graph that is not what its file claims. `severity` "error" makes the claim untrue."""

    node: str
    problem: str
    severity: Literal["error", "warning"] = "error"


class Accelerated(Record):
    """What a runtime accelerates of a file. `operators` are all that compute; `findings` name what it does not.

    `basis` "asked": the runtime, of that version, loaded the file on this machine. "rules": its documentation says so.
    """

    runtime: InferenceRuntime
    version: str | None
    basis: Literal["asked", "rules"]
    operators: int
    findings: tuple[Finding, ...]


class Audit(Record):
    """What a file was found to hold, against the scheme it claims."""

    claimed_scheme: Scheme
    found_scheme: str
    honest: bool
    operators: dict[str, int]
    weight_bytes: int
    parameters: int
    findings: tuple[Finding, ...] = ()


class Parity(Record):
    """How far two forms of one student agree over the same real inputs. LSB: steps of the int8 output's scale.

    `first_divergent_layer` is looked for where they agree too little.
    """

    pair: str
    inputs: PositiveInt
    top1_agreement: NonNegative
    max_abs_lsb: int
    mean_abs_lsb: NonNegative
    identical_logits: NonNegative
    first_divergent_layer: str | None = None


TorchForm = Literal["the module", "the rounded module"]


class FileDistance(Record):
    """How far the outputs of a file are from those of the torch module it was made from, over the same real inputs.

    `max_abs` is the largest distance of two outputs, `share_of_range` the same as a share of torch's outputs' range.
    """

    path: str
    against: TorchForm
    inputs: PositiveInt
    max_abs: float
    share_of_range: float
    top1_agreement: NonNegative


class Artifact(Record):
    """A file in the run directory. `path` is relative to it; `parent` is the sha256 of what it was made from."""

    path: str
    format: Format
    scheme: Scheme
    sha256: Sha256
    size_bytes: PositiveInt
    parent: Sha256 | None = None
    audit: Audit | None = None
