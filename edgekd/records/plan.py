"""How to measure."""

from __future__ import annotations

from typing import Literal

from edgekd.records.base import MeasuredRuntime, NonNegative, Positive, PositiveInt, Record

PlanName = Literal["quick", "standard", "mlperf", "sustained"]


class MeasurementPlan(Record):
    """Runs are timed until both `min_runs` and `min_seconds` are reached, over `processes` fresh processes.

    Each process first warms up for `warmup_runs` and `warmup_seconds`, whichever ends later. While a verdict
    is undecided measuring goes on up to `max_seconds` of timed running, which also ends a plan that does not come
    to its runs in that time.

    With `settle_seconds` the board first runs as long, in a process of its own; its samples are kept, but only what
    came after is judged. With `rate_hz` inputs arrive at that rate, and not as fast as they are worked on.
    `background` says whether others' work on the board is there on purpose. `meter` is what `--power` said: `none`,
    `auto`, a meter's name, `external:COMMAND` or `replay:FILE`; the energy pass then takes `energy_windows` idle and
    as many running windows of `energy_window_seconds`, each kind after `energy_lead_seconds` of the same. `provider` is
    the execution provider that has to run the graph, `container` the image that the agent runs in.
    """

    name: PlanName
    runtime: MeasuredRuntime
    threads: PositiveInt
    min_runs: PositiveInt
    min_seconds: Positive
    processes: PositiveInt = 5
    warmup_runs: PositiveInt = 5
    warmup_seconds: Positive = 0.5
    max_seconds: Positive
    settle_seconds: NonNegative = 0.0
    rate_hz: Positive | None = None
    background: Literal["none", "declared"] = "none"
    pin_clocks: bool = False
    meter: str = "none"
    energy_judged: Literal["gross", "net"] = "gross"
    energy_windows: PositiveInt = 5
    energy_window_seconds: Positive = 10.0
    energy_lead_seconds: Positive = 1.0
    provider: str | None = None
    container: str | None = None


_LEAST: dict[PlanName, tuple[int, float, float, float]] = {
    "quick": (64, 10.0, 30.0, 0.0),
    "standard": (662, 60.0, 180.0, 0.0),
    "mlperf": (1024, 600.0, 1200.0, 0.0),
    "sustained": (662, 300.0, 2400.0, 1500.0),
}
"""Runs, seconds, seconds at most, and seconds to settle."""


def named_plan(name: PlanName, runtime: MeasuredRuntime, threads: int) -> MeasurementPlan:
    """The plan of that name.

    `quick`: 64 runs and 10 s. `standard`: 662 runs and 60 s (p99 needs 662 samples). `mlperf`: 1,024 runs and 600 s
    (MLPerf Inference's single stream). `sustained`: 30 minutes, of which the last 5 are judged.
    """
    runs, seconds, most, settle = _LEAST[name]
    return MeasurementPlan(
        name=name,
        runtime=runtime,
        threads=threads,
        min_runs=runs,
        min_seconds=seconds,
        max_seconds=most,
        settle_seconds=settle,
    )
