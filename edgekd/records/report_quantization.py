"""How a student came to be quantized: what calibration gave, what training gave, and where accuracy went."""

from __future__ import annotations

from typing import Any, Literal

from edgekd.records.artifact import Scheme
from edgekd.records.base import Record


class QuantizationStep(Record):
    """One way of getting to the numbers: the share of the validation split it gets right, and what it cost."""

    validation_accuracy: float
    seconds: float
    cpu_seconds: float
    detail: dict[str, Any] = {}


class LayerReport(Record):
    """What rounding does at a layer.

    `damage_nats` is what it does to the class probabilities when it alone is rounded (Kullback-Leibler divergence).
    `sqnr_db` is the signal over all rounding up to its output, None where nothing is lost; `low` and `high` are the
    ends of its range; `saturated` is the share of values that the range clips.
    """

    layer: str
    kind: str
    damage_nats: float
    sqnr_db: float | None
    low: float
    high: float
    saturated: float
    in_float: bool = False


class KeptInFloat(Record):
    """What keeping some layers in float bought at the time it was decided.

    The first of `layers` (place in the module and kind) is the one whose rounding does `damage_nats`; the others read
    what it gives, or help only together with it. Divergences are of the class probabilities from the unrounded model's,
    accuracies of the validation split; `more_bytes` is what float weights add to a file.
    """

    layers: tuple[str, ...]
    damage_nats: float
    divergence_before_nats: float
    divergence_nats: float
    validation_accuracy_before: float
    validation_accuracy: float
    more_bytes: int


class MixedReport(Record):
    """Whether layers were kept in float for accuracy, and which. `holds`: what was allowed to be lost is not exceeded.

    `step` is None where none was kept; `float_steps` are the keys of all steps of the model that compute in float.
    """

    reason: str
    holds: bool
    kept: tuple[KeptInFloat, ...] = ()
    step: QuantizationStep | None = None
    float_steps: tuple[str, ...] = ()


class QuantizationReport(Record):
    """Calibration alone (PTQ), training with rounding (QAT) where it was done, and which of them was kept and why.

    The validation split decided. `scheme` is that of the files: `wi8_ai8_mixed` where layers are in float, for accuracy
    (`mixed`) or because they have no int8 form (`float_operators`, by place and kind). `layers` are in the order of
    execution, with what rounding did to each before any was kept in float for accuracy; `in_float` are those that are.
    """

    scheme: Scheme
    fp32: QuantizationStep
    ptq: QuantizationStep
    qat: QuantizationStep | None
    qat_reason: str
    chosen: Literal["ptq", "qat"]
    layers: tuple[LayerReport, ...] = ()
    mixed: MixedReport | None = None
    float_operators: tuple[str, ...] = ()
