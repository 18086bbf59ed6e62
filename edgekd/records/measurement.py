"""What a board measured: raw samples, memory, power, accuracy, and the board's state while it did."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from edgekd.records.base import Fraction, MeasuredRuntime, NonNegative, PositiveInt, Record, Sha256
from edgekd.records.plan import MeasurementPlan


class PowerWindow(Record):
    """One window of the energy pass, in seconds on the clock of the trace; no runs where the board was idle."""

    begin_s: float
    end_s: float
    runs: int


class PowerTrace(Record):
    """Power over the board's monotonic clock, and the energy drawn from it.

    `energy_mj` is what one inference draws, gross; `net_mj` the same less the idle baseline. The intervals are at
    95 % and hold resolution, gain, rate, clock and the spread of the windows. `trace` is all that was read, as
    (seconds, watts), from the start of the energy pass on. `problems` forbid a judgement: a meter that stopped, stuck
    or jumped, too few windows, others' work. `judged` says which of gross and net a limit is held against.
    """

    meter: str
    rail: str
    grade: Literal["A", "B", "C", "D"]
    rate_hz: NonNegative
    idle_w: NonNegative | None
    mean_w: NonNegative
    energy_mj: NonNegative
    interval_mj: tuple[float, float] | None
    seconds: tuple[float, ...] = Field(default=(), description="not written any more: see `trace`")
    watts: tuple[float, ...] = ()
    trace: tuple[tuple[float, float], ...] = ()
    windows: tuple[PowerWindow, ...] = ()
    net_mj: float | None = None
    net_interval_mj: tuple[float, float] | None = None
    judged: Literal["gross", "net"] = "gross"
    resolution_w: NonNegative | None = None
    gain: Fraction | None = None
    clock_error_s: NonNegative = 0.0
    foreign_share: Fraction | None = Field(default=None, description="of all cores, while inferences ran")
    problems: tuple[str, ...] = ()


class Contention(Record):
    """What others took from the timed runs, by the kernel's account.

    `preempted_share`: interruptions by others for each run (1 at most), so at most that share of runs was disturbed.
    `waited_share`: time ready to run but without a core, of the time ready or running. `stolen_share`: time that a
    hypervisor took from the cores, of the timed seconds times the cores. `swapped`: this process had to wait for
    pages from disk while the board swapped.
    """

    preempted_share: Fraction
    waited_share: Fraction
    stolen_share: Fraction
    major_faults: int
    swapped: bool


class OperatorTime(Record):
    """The mean time of one operator in the profiling pass, and its share of all operators' time."""

    name: str
    kind: str
    mean_ms: NonNegative
    share: Fraction


class HostParity(Record):
    """The board's raw outputs against this machine's, for the same file over the first `inputs` stored inputs.

    `identical` is the share of single output values that are equal. The differences are in steps of the output's
    integer type, or None where the output is not integer; `max_abs` is the largest of float outputs.
    """

    inputs: PositiveInt
    bit_exact: bool
    identical: Fraction
    max_abs_lsb: int | None
    mean_abs_lsb: NonNegative | None
    max_abs: NonNegative | None = None
    top1_agreement: Fraction | None = None
    host_runtime_version: str


class Engine(Record):
    """What TensorRT built on the board: the engine is what runs, and another build may pick other kernels.

    `flags` are what `trtexec` was given to build it. `build_seconds` is what that took, then or now; it is in no
    latency. `built_now` is False where an engine of the same ONNX, device, version and flags was there.
    """

    sha256: Sha256
    size_bytes: PositiveInt
    onnx_sha256: Sha256
    version: str
    device: str
    flags: tuple[str, ...]
    build_seconds: NonNegative
    built_now: bool


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
    `facts` maps "before" and "after" to the board's state. Only samples from `judged_from_s` on are judged, and none
    of `disturbed_processes`; percentiles and `contention` are theirs. `end_to_end_ms` are times from a stored input to
    the predicted class, from a pass of their own; `per_operator` too.
    """

    board: str
    matches_profile: str | None = Field(description="name of the profile whose kind this board is, or None")
    mismatch_reason: str = ""
    runtime: MeasuredRuntime
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
    early_stopping_p90_ms: NonNegative | None = Field(default=None, description="MLPerf's bound on p90 at 99 %")
    judged_from_s: float = 0.0
    disturbed_processes: tuple[int, ...] = Field(default=(), description="set aside: others kept them from running")
    deadline_misses: int | None = Field(default=None, description="of `runs`, where inputs arrived at a rate")
    end_to_end_ms: tuple[float, ...] = ()
    end_to_end_p50_ms: NonNegative | None = None
    end_to_end_p90_ms: NonNegative | None = None
    per_operator: tuple[OperatorTime, ...] = ()
    host_parity: HostParity | None = None
    contention: Contention | None = None
    engine: Engine | None = Field(default=None, description="TensorRT only")
    gpu_memory_bytes: NonNegative | None = Field(default=None, description="part of peak_memory_bytes; Jetson only")
    states: tuple[ThrottleSample, ...] = ()
    throttled: bool | None = None
    facts: dict[str, Any]
    notes: tuple[str, ...] = Field(default=(), description="what a reader of the figures must know")
