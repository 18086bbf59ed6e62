"""What a model file is predicted to cost on a board."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgekd.records.base import SCHEMA_VERSION, Fraction, Positive, Record, RuntimeName


class PredictedOperator(Record):
    """One operator of the file. `share` is its part of what all operators take, so the shares add up to 1.

    What the runtime takes beside them is `Prediction.overhead_ms`: it and all `latency_ms` add up to the prediction's.
    """

    name: str
    kind: str
    macs: int
    parameters: int
    latency_ms: float | None
    share: float | None


class Prediction(Record):
    """What `edgekd predict` prints. All figures are predictions but `file_size_kib`, which is the file's own size.

    `latency_ms` is the median of one inference and `interval_ms` holds it with `confidence`; both are None where the
    profile has no latency model for the file. `energy_mj` is that of one inference, gross of idle, from a model that
    `edgekd calibrate --power` made; without one it is None and `energy` says `not_measured`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model: str
    profile: str
    basis: Literal["predicted"] = "predicted"
    runtime: RuntimeName
    scheme: str
    threads: int
    provenance: Literal["prior", "published", "measured"] | None
    source: str
    confidence: Fraction | None
    latency_ms: Positive | None
    interval_ms: tuple[float, float] | None
    overhead_ms: float | None
    energy_mj: float | None
    energy_interval_mj: tuple[float, float] | None = None
    energy: Literal["predicted", "not_measured"] = "not_measured"
    energy_source: str = ""
    peak_memory_mib: Positive
    peak_memory_interval_mib: tuple[float, float]
    file_size_kib: Positive
    macs: int
    parameters: int
    per_operator: tuple[PredictedOperator, ...]
    notes: tuple[str, ...] = Field(default=(), description="what a reader of the figures must know")
