"""The described target: what a board is, and what its figures stand for."""

from __future__ import annotations

import math
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from edgekd.records.base import SCHEMA_VERSION, Fraction, NonNegative, Positive, PositiveInt, Record, RuntimeName
from edgekd.records.budget import Budget

T = TypeVar("T")

# Bounds that catch a value given in another unit: 1.8 where GHz were meant, 4 where GiB were meant.
ClockMhz = Annotated[float, Field(ge=50, le=20_000, allow_inf_nan=False)]
RamMib = Annotated[int, Field(ge=64, le=2**22)]


class Sourced(Record, Generic[T]):
    """A value and where it comes from: a data sheet, a kernel source, a published measurement, a command run."""

    value: T
    source: Annotated[str, Field(min_length=3)]


class Match(Record):
    """Decides whether a live board is of this profile's kind.

    `device_tree_models` are prefixes of /proc/device-tree/model. RAM bounds are in MiB of MemTotal and inclusive.
    `this_machine` is for the profile of the machine edgekd runs on, and matches only the local board.
    """

    device_tree_models: tuple[str, ...] = ()
    ram_mib_min: RamMib | None = None
    ram_mib_max: RamMib | None = None
    this_machine: bool = False

    @field_validator("ram_mib_max")
    @classmethod
    def _bounds_in_order(cls, high: int | None, info: ValidationInfo) -> int | None:
        low = info.data.get("ram_mib_min")
        if low is not None and high is not None and low > high:
            raise ValueError(f"is below ram_mib_min = {low}: no board could match")
        return high

    @model_validator(mode="after")
    def _matches_something(self) -> Match:
        if not self.device_tree_models and not self.this_machine:
            raise ValueError("needs device_tree_models, or this_machine = true: otherwise no board can ever match")
        return self


class Soc(Record):
    """The system on chip. Clocks are the highest of the fastest cluster, in MHz."""

    name: Sourced[str]
    cpu: Sourced[str]
    isa: Sourced[str]
    isa_features: Sourced[tuple[str, ...]]
    cores: Sourced[PositiveInt]
    clock_mhz: Sourced[ClockMhz]
    ram_mib: Sourced[tuple[RamMib, ...]]


class Platform(Record):
    """What wheels the board takes. `wheel_platform` is a platform tag of PEP 600 (`manylinux_2_28_aarch64`)."""

    wheel_platform: Sourced[Annotated[str, Field(pattern=r"^(manylinux|musllinux|linux|macosx|win)[a-z0-9_]*$")]]
    python: Sourced[str]
    os: Sourced[str]


class OperatingPoint(Record):
    """The state that the profile's figures and budget stand for."""

    threads: PositiveInt
    runtime: RuntimeName
    governor: str
    power_mode: str
    cooling: str
    source: Annotated[str, Field(min_length=3)]


class Acceleration(Record):
    """Whether the ISA and the runtime run a numeric scheme faster than fp32, and why that is believed."""

    runtime: RuntimeName
    scheme: Literal["wi8_ai8", "wi8", "fp16", "fp32"]
    faster_than_fp32: bool
    source: Annotated[str, Field(min_length=3)]


class Sensor(Record):
    """A power or temperature sensor a board of this kind may have. `grade` as for energy: A best, D an estimate."""

    kind: Literal["ina3221", "ina238", "hwmon", "pmic_read_adc", "rapl", "external", "thermal_zone"]
    measures: Literal["power", "temperature"]
    rail: str
    grade: Literal["A", "B", "C", "D"] | None = Field(default=None, validate_default=True)
    source: Annotated[str, Field(min_length=3)]

    @field_validator("grade")
    @classmethod
    def _power_has_a_grade(cls, grade: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("measures") == "power" and grade is None:
            raise ValueError("a power sensor needs a grade: A meter, B input rail, C partial rails, D estimate")
        return grade


OPERATOR_KINDS = ("conv", "pointwise", "depthwise", "dense", "add", "pool", "other")


class OperatorCost(Record):
    """What one kind of operator costs, in milliseconds.

    Per million MACs, per million bytes moved, per operator; and, where the model has a `tile`, per million MACs with
    the output channels rounded up to whole tiles, per thousand output positions (height times width), per thousand
    positions times tiles of output channels, and per million weights.
    """

    ms_per_mmac: NonNegative = 0.0
    ms_per_mbyte: NonNegative = 0.0
    ms_per_op: NonNegative = 0.0
    ms_per_mtiled_mac: NonNegative = 0.0
    ms_per_kposition: NonNegative = 0.0
    ms_per_kpanel: NonNegative = 0.0
    ms_per_mweight: NonNegative = 0.0


class HeldOut(Record):
    """A model that took no part in a fit: measured, and predicted with the fit's interval, in ms."""

    label: str
    measured_ms: Positive
    predicted_ms: Positive
    low_ms: Positive
    high_ms: Positive

    @property
    def covered(self) -> bool:
        """Whether the interval held what was measured."""
        return self.low_ms <= self.measured_ms <= self.high_ms


class MeasuredWork(Record):
    """The measurements that a latency model was fitted to, and the views of them that predict (see `latency_views`).

    A row: the measured latency in ms, then the amount of each column. `weights`: of the `views`, together 1.
    """

    columns: tuple[str, ...]
    rows: Annotated[tuple[tuple[NonNegative, ...], ...], Field(min_length=4)]
    views: tuple[Literal["shares", "curved", "bent", "smooth", "power"], ...]
    weights: tuple[Fraction, ...]

    @model_validator(mode="after")
    def _fits_together(self) -> MeasuredWork:
        if any(len(row) != 1 + len(self.columns) or row[0] <= 0 for row in self.rows):
            raise ValueError(f"every row needs a latency above 0 and {len(self.columns)} amounts, one for each column")
        if len(self.views) != len(self.weights) or len(set(self.views)) != len(self.views):
            raise ValueError(f"{len(self.views)} views and {len(self.weights)} weights: each view needs one")
        if self.views and not math.isclose(sum(self.weights), 1.0, abs_tol=1e-6):
            raise ValueError(f"the views' weights add up to {sum(self.weights):g}, not 1")
        return self


TailName = Literal["p50", "p90", "p95", "p99"]
TAIL_NAMES: dict[int, TailName] = {50: "p50", 90: "p90", 95: "p95", 99: "p99"}
TailRatio = tuple[Positive, Positive, Positive]
"""A percentile over the quiet median: value, lower and upper end."""


class LatencyModel(Record):
    """Predicts the latency of one inference from an operator list, in milliseconds.

    The plain sum is `overhead_ms` plus the sum over operators of their kind's costs. The interval lies around it:
    `[p / exp(half_width), p * exp(half_width)]` holds `confidence` of cases. Above `hull` (the least and greatest
    value of each fitted feature) the half width grows by `widening` for every e-fold beyond the edge; below it twice
    as fast downwards, and upwards for two e-folds at most. Without `measured` the plain sum is the prediction; with
    it the views of what was measured predict, within the half width around the plain sum.

    The latency that is predicted is the median while the board has nothing else to do. `tails`: of a percentile over
    it, the value and the lower and upper end, where they were measured: they are the board's own, with whatever else
    it had to do.

    `tile`: kernels compute so many output channels at once, and a part of a tile takes as long as a whole one; None
    where MACs are counted as they are. `indirect`: a convolution's taps are rounded up one by one (see
    `edgekd.core.latency_features.Kernels`). `held_out` is the fit's error table: what `held_out_mape_percent` and
    `interval_coverage` were computed from.
    """

    runtime: RuntimeName
    runtime_version: str
    scheme: Literal["wi8_ai8", "wi8", "fp16", "fp32"]
    threads: PositiveInt | None = Field(default=None, description="None where the figures do not say")
    provenance: Literal["prior", "published", "measured"]
    overhead_ms: NonNegative
    costs: dict[str, OperatorCost]
    tile: PositiveInt | None = None
    indirect: bool = False
    half_width: NonNegative
    confidence: Fraction = 0.9
    widening: NonNegative = 0.25
    hull: dict[str, tuple[NonNegative, NonNegative]] = {}
    samples: int = Field(ge=0)
    held_out_mape_percent: NonNegative | None = None
    interval_coverage: Fraction | None = None
    held_out: tuple[HeldOut, ...] = ()
    measured: MeasuredWork | None = None
    tails: dict[TailName, TailRatio] = {}
    measured_by: str = ""
    measured_on: str = ""
    source: Annotated[str, Field(min_length=3)]

    @field_validator("costs")
    @classmethod
    def _kinds_are_known(cls, costs: dict[str, OperatorCost]) -> dict[str, OperatorCost]:
        unknown = sorted(set(costs) - set(OPERATOR_KINDS))
        if unknown:
            raise ValueError(f"unknown operator kind {', '.join(unknown)}; the kinds are {', '.join(OPERATOR_KINDS)}")
        return costs

    @field_validator("tails")
    @classmethod
    def _ends_around_the_value(cls, tails: dict[TailName, TailRatio]) -> dict[TailName, TailRatio]:
        for name, (value, low, high) in tails.items():
            if not 1 <= low <= value <= high:
                raise ValueError(f"{name} = [{value:g}, {low:g}, {high:g}]: needs 1 <= lower end <= value <= upper end")
        return tails

    @field_validator("hull")
    @classmethod
    def _edges_in_order(cls, hull: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        turned = [f"{name} = [{low:g}, {high:g}]" for name, (low, high) in hull.items() if low > high]
        if turned:
            raise ValueError(f"lower edge above the upper one: {'; '.join(turned)}")
        return hull


class EnergyModel(Record):
    """Predicts the energy of one inference, gross of idle, in millijoules.

    It rests on the profile's latency model of the same runtime, scheme and threads: `watts` times the latency that it
    predicts, plus `mj_per_inference`, plus `mj_per_op` for each operator. `half_width` and `confidence` as there.
    """

    runtime: RuntimeName
    runtime_version: str
    scheme: Literal["wi8_ai8", "wi8", "fp16", "fp32"]
    threads: PositiveInt | None = None
    meter: str
    rail: str
    grade: Literal["A", "B", "C", "D"]
    watts: NonNegative
    mj_per_inference: NonNegative = 0.0
    mj_per_op: NonNegative = 0.0
    half_width: NonNegative
    confidence: Fraction = 0.9
    samples: int = Field(ge=0)
    held_out_mape_percent: NonNegative | None = Field(
        default=None, description="each student predicted from the others"
    )
    measured_by: str = ""
    measured_on: str = ""
    source: Annotated[str, Field(min_length=3)]


def _usable_by_default(budget: Budget) -> Budget:
    missing = [name for name in ("latency_p90_ms", "peak_memory_mib") if getattr(budget, name) is None]
    if missing:
        raise ValueError(f"a profile's budget needs at least latency_p90_ms and peak_memory_mib; missing: {missing}")
    return budget


class DeviceProfile(Record):
    """A kind of board: what it is, what its figures stand for, its default budget and its latency models."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    aliases: tuple[str, ...] = ()
    match: Match
    soc: Soc
    platform: Platform
    operating_point: OperatingPoint
    acceleration: tuple[Acceleration, ...]
    sensors: tuple[Sensor, ...] = ()
    budget: Annotated[Budget, AfterValidator(_usable_by_default)]
    latency_models: tuple[LatencyModel, ...] = ()
    energy_models: tuple[EnergyModel, ...] = ()
    notes: tuple[str, ...] = ()

    # On the field, not on the whole record, so that it is reported along with errors elsewhere in the file.
    @field_validator("operating_point")
    @classmethod
    def _threads_fit_cores(cls, point: OperatingPoint, info: ValidationInfo) -> OperatingPoint:
        soc = info.data.get("soc")
        if soc is not None and point.threads > soc.cores.value:
            raise ValueError(f"threads = {point.threads} exceeds soc.cores = {soc.cores.value}")
        return point
