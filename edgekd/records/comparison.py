"""Two model files measured in turn on one board, and which is faster."""

from __future__ import annotations

from typing import Any, Literal

from edgekd.records.base import Fraction, MeasuredRuntime, Positive, PositiveInt, Record, Sha256
from edgekd.records.plan import MeasurementPlan

Order = Literal["faster", "slower", "undecided"]


class ComparedSide(Record):
    """One of the two. `medians_ms` are the medians of its processes in order; the samples are kept as they came."""

    model: str
    sha256: Sha256
    runtime: MeasuredRuntime
    runtime_version: str
    provider: str
    medians_ms: tuple[Positive, ...]
    samples_ms: tuple[float, ...]
    sample_processes: tuple[int, ...]


class MedianRatio(Record):
    """The ratio of medians, first over second, over pairs of processes that ran one after the other.

    `verdict` is what the first is to the second, by whether the interval holds 1. `confidence` is that of the
    interval: higher than 95 %, because it may be looked at several times.
    """

    ratio: Positive
    interval: tuple[Positive, Positive] | None
    confidence: Fraction
    pairs: PositiveInt
    verdict: Order


class Comparison(Record):
    """The measurement of two files in turn: processes in the order A B B A A B B A and so on."""

    board: str
    plan: MeasurementPlan
    first: ComparedSide
    second: ComparedSide
    order: str
    median_ratio: MedianRatio
    disturbed_pairs: int = 0
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()
    exit_code: int
