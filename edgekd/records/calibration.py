"""What a calibration measured and what came of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgekd.records.base import SCHEMA_VERSION, NonNegative, Positive, Record
from edgekd.records.profile import EnergyModel, LatencyModel, TailName


class TimedRound(Record):
    """One short timing of one student.

    `median_ms` is that of its quietest tenth; `tails_ms` are percentiles of all its runs (`p90`, …), of those that it
    has runs enough for.
    """

    student: int
    round: int
    median_ms: Positive
    tails_ms: dict[TailName, Positive] = {}
    throttled: bool = False


class EnergyReading(Record):
    """What one student drew in an energy pass: mJ for one inference, gross, and the mean power in W."""

    student: int
    energy_mj: Positive
    mean_w: Positive
    meter: str
    rail: str
    grade: Literal["A", "B", "C", "D"]
    problems: tuple[str, ...] = Field(default=(), description="what keeps it out of the fit")


class SampleLevel(Record):
    """A student's level over its rounds, in ms. `doubt`: how far its faster rounds lie apart, a fraction."""

    label: str
    level_ms: Positive
    doubt: NonNegative | None = Field(description="None where there was a single round")
    rounds: int
    role: Literal["fitted", "held_out", "excluded"]
    reason: str = ""


class Calibration(Record):
    """What `edgekd calibrate` prints. The model's error table comes from a fit that did not see the held-out third.

    `throttled_rounds` were dropped; `remeasured` students had further rounds; `excluded` stayed too
    noisy, or there was no time for their further rounds: each sample's `reason` says which.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    profile: str
    board: str
    out: str
    plot: str
    seconds: NonNegative
    throttled_rounds: int
    remeasured: int
    excluded: int
    samples: tuple[SampleLevel, ...]
    latency_model: LatencyModel
    energy_model: EnergyModel | None = Field(default=None, description="None where energy was not measured")
    energy: tuple[EnergyReading, ...] = ()
    notes: tuple[str, ...] = ()
