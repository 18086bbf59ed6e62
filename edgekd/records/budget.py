"""The constraints a student has to meet on its board."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgekd.records.base import Fraction, Positive, Record

LATENCY_PERCENTILES = {"latency_p50_ms": 50, "latency_p90_ms": 90, "latency_p95_ms": 95, "latency_p99_ms": 99}


class Budget(Record):
    """Limits, each optional. A limit that is None is not a constraint.

    Upper limits: the latencies (single inference, milliseconds, at the percentile named), `peak_memory_mib`
    (VmHWM less RSS after the runtime's import, MiB of 2**20 bytes), `file_size_kib` (KiB of 2**10 bytes),
    `accuracy_drop_max` (teacher less int8 student on the test split, a fraction), `slice_accuracy_drop_max` (the same
    in the worst class or declared slice, in percentage points), `energy_mj` (gross energy per inference,
    millijoules), `power_w` (mean power while inferring). Lower limits: `fps` (inferences per second,
    back to back) and `accuracy_min` (a fraction of the test split).
    """

    latency_p50_ms: Positive | None = None
    latency_p90_ms: Positive | None = None
    latency_p95_ms: Positive | None = None
    latency_p99_ms: Positive | None = None
    fps: Positive | None = None
    peak_memory_mib: Positive | None = None
    file_size_kib: Positive | None = None
    accuracy_min: Fraction | None = None
    accuracy_drop_max: Fraction | None = None
    slice_accuracy_drop_max: Annotated[float, Field(ge=0, le=100)] | None = None
    energy_mj: Positive | None = None
    power_w: Positive | None = None
    mode: Literal["burst", "sustained"] = "burst"

    def constraints(self) -> dict[str, float]:
        """The limits that are set, by constraint name, in the order of declaration."""
        return {name: value for name, value in self if name != "mode" and value is not None}

    def overridden_by(self, other: Budget) -> Budget:
        """This budget with every value that `other` sets itself put over it."""
        return self.model_copy(update={name: getattr(other, name) for name in other.model_fields_set})
