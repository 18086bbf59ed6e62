"""The described target: what a board is, and what its figures stand for."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, model_validator

from edgekd.records.base import SCHEMA_VERSION, Fraction, NonNegative, Positive, PositiveInt, Record, RuntimeName
from edgekd.records.budget import Budget

T = TypeVar("T")


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
    ram_mib_min: PositiveInt | None = None
    ram_mib_max: PositiveInt | None = None
    this_machine: bool = False

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
    clock_mhz: Sourced[Positive]
    ram_mib: Sourced[tuple[PositiveInt, ...]]


class Platform(Record):
    """What wheels the board takes. `wheel_platform` is a platform tag of PEP 600 (`manylinux_2_28_aarch64`)."""

    wheel_platform: Sourced[str]
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
    grade: Literal["A", "B", "C", "D"] | None = None
    source: Annotated[str, Field(min_length=3)]


class OperatorCost(Record):
    """What one kind of operator costs: milliseconds per million MACs, per million bytes moved, and per operator."""

    ms_per_mmac: NonNegative = 0.0
    ms_per_mbyte: NonNegative = 0.0
    ms_per_op: NonNegative = 0.0


class LatencyModel(Record):
    """Predicts the latency of one inference from an operator list, in milliseconds.

    The prediction is `overhead_ms` plus the sum over operators of their kind's costs. The interval is
    multiplicative: `[p / exp(half_width), p * exp(half_width)]` holds `confidence` of cases. Outside `hull`
    (the least and greatest value of each fitted feature) the half width grows by `widening` for every
    e-fold beyond the nearest edge.
    """

    runtime: RuntimeName
    runtime_version: str
    scheme: Literal["wi8_ai8", "wi8", "fp16", "fp32"]
    threads: PositiveInt | None = Field(description="None where the figures do not say")
    provenance: Literal["prior", "published", "measured"]
    overhead_ms: NonNegative
    costs: dict[str, OperatorCost]
    half_width: NonNegative
    confidence: Fraction = 0.9
    widening: NonNegative = 0.25
    hull: dict[str, tuple[NonNegative, NonNegative]] = {}
    samples: int = Field(ge=0)
    held_out_mape_percent: NonNegative | None = None
    interval_coverage: Fraction | None = None
    measured_by: str = ""
    measured_on: str = ""
    source: Annotated[str, Field(min_length=3)]


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
    budget: Budget
    latency_models: tuple[LatencyModel, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _budget_is_usable(self) -> DeviceProfile:
        if self.budget.latency_p90_ms is None or self.budget.peak_memory_mib is None:
            raise ValueError("budget: a profile needs at least latency_p90_ms and peak_memory_mib")
        if self.operating_point.threads > self.soc.cores.value:
            raise ValueError(
                f"operating_point.threads is {self.operating_point.threads} "
                f"but soc.cores is {self.soc.cores.value}: threads cannot exceed cores"
            )
        return self
