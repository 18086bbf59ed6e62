"""What `edgekd quantize` reports."""

from __future__ import annotations

from typing import Literal

from edgekd.errors import EXIT_MET
from edgekd.pipeline.quantization.pruning_result import PruningReport
from edgekd.records import (
    Artifact,
    FileDistance,
    LayerReport,
    MixedReport,
    Parity,
    QuantizationStep,
    Record,
    Scheme,
    Verdict,
)


class Step(QuantizationStep):
    """The same with the share of the test split it gets right."""

    accuracy: float


class Quantized(Record):
    """What `edgekd quantize` did.

    `scheme` is that of the files: `wi8_ai8_mixed` where layers were kept in float, for accuracy (`mixed`) or because
    they have no int8 form (`float_operators`, by their place and kind).
    Accuracies are of torch models: `accuracy` on the test split, `validation_accuracy` on the one that decided.
    `metric` says what they are: where the inputs had no labels, agreement with the float model. `file_accuracy` is
    that of the .tflite (.onnx where there is none) itself, over at most 2,000 test inputs. `layers` has the one
    that does most damage first. `parity` holds the rungs that must agree, of wi8_ai8 and wi8_ai8_mixed; `distances` how
    far every other file is from torch, of which those of fp32 files are bounded.
    """

    schema_version: Literal[1] = 1
    model: str
    scheme: Scheme
    out: str
    pruning: PruningReport | None = None
    metric: Literal["accuracy", "agreement with fp32"]
    test_inputs: int
    fp32: Step
    ptq: Step
    qat: Step | None
    qat_reason: str
    chosen: Literal["ptq", "qat"]
    mixed: Step | None = None
    mixed_report: MixedReport | None = None
    float_operators: tuple[str, ...] = ()
    file_accuracy: float
    artifacts: tuple[Artifact, ...]
    parity: tuple[Parity, ...]
    distances: tuple[FileDistance, ...] = ()
    layers: tuple[LayerReport, ...]
    verdict: Verdict | None = None
    exit_code: int = EXIT_MET
