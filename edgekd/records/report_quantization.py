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


class QuantizationReport(Record):
    """Calibration alone (PTQ), training with rounding (QAT) where it was done, and which of them was kept and why.

    The validation split decided. `layers` are in the order of execution.
    """

    scheme: Scheme
    fp32: QuantizationStep
    ptq: QuantizationStep
    qat: QuantizationStep | None
    qat_reason: str
    chosen: Literal["ptq", "qat"]
    layers: tuple[LayerReport, ...] = ()
