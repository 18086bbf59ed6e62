"""What a board measured: raw samples, memory, power, accuracy, and the board's state while it did."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from edgekd.records.base import Fraction, NonNegative, PositiveInt, Record, RuntimeName, Sha256
from edgekd.records.plan import MeasurementPlan


class PowerTrace(Record):
    """Power over the board's monotonic clock, and the energy drawn from it."""

    meter: str
    rail: str
    grade: Literal["A", "B", "C", "D"]
    rate_hz: NonNegative
    idle_w: NonNegative | None
    mean_w: NonNegative
    energy_mj: NonNegative
    interval_mj: tuple[float, float] | None
    seconds: tuple[float, ...]
    watts: tuple[float, ...]


class ThrottleSample(Record):
    """The board's state at one moment of the run. `throttled` is None where the board has no way to tell."""

    at_s: float
    temperature_c: float | None = None
    clock_mhz: float | None = None
    throttled: bool | None = None


class Measurement(Record):
    """The measurement of one model file on one board.

    `samples_ms[i]` began `sample_times_s[i]` seconds after the first one, on the board's monotonic clock, in
    process `sample_processes[i]`. At most 20,000 samples are kept, every `sample_stride`-th in order, the stride
    fixed before the run; percentiles are computed over the kept samples. `peak_rss_bytes` is the whole process
    (VmHWM), `peak_memory_bytes` the same less the RSS right after the runtime's import: the constraint's value.
    `facts` maps "before" and "after" to the board's state.
    """

    board: str
    matches_profile: str | None = Field(description="name of the profile whose kind this board is, or None")
    mismatch_reason: str = ""
    runtime: RuntimeName
    runtime_version: str
    provider: str
    threads: PositiveInt
    plan: MeasurementPlan
    model_sha256: Sha256
    model_path: str
    samples_ms: tuple[float, ...]
    sample_times_s: tuple[float, ...]
    sample_processes: tuple[int, ...]
    sample_stride: PositiveInt
    runs: PositiveInt
    latency_p50_ms: NonNegative
    latency_p90_ms: NonNegative
    latency_p99_ms: NonNegative
    peak_rss_bytes: PositiveInt
    peak_memory_bytes: NonNegative
    cold_start_ms: NonNegative | None = None
    accuracy: Fraction | None = None
    accuracy_inputs: int = 0
    correct: tuple[bool, ...] | None = Field(default=None, description="per test input, on the board")
    power: PowerTrace | None = None
    states: tuple[ThrottleSample, ...] = ()
    throttled: bool | None = None
    facts: dict[str, Any]
    notes: tuple[str, ...] = Field(default=(), description="what a reader of the figures must know")
