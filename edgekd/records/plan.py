"""How to measure."""

from __future__ import annotations

from typing import Literal

from edgekd.records.base import Positive, PositiveInt, Record, RuntimeName

PlanName = Literal["quick", "standard"]


class MeasurementPlan(Record):
    """Runs are timed until both `min_runs` and `min_seconds` are reached, over `processes` fresh processes.

    Each process first warms up for `warmup_runs` and `warmup_seconds`, whichever ends later. While a verdict
    is undecided measuring goes on up to `max_seconds` of timed running.
    """

    name: PlanName
    runtime: RuntimeName
    threads: PositiveInt
    min_runs: PositiveInt
    min_seconds: Positive
    processes: PositiveInt = 5
    warmup_runs: PositiveInt = 5
    warmup_seconds: Positive = 0.5
    max_seconds: Positive


def named_plan(name: PlanName, runtime: RuntimeName, threads: int) -> MeasurementPlan:
    """The plan of that name. `quick`: 64 runs and 10 s. `standard`: 662 runs and 60 s (p99 needs 662 samples)."""
    if name == "quick":
        return MeasurementPlan(
            name=name, runtime=runtime, threads=threads, min_runs=64, min_seconds=10.0, max_seconds=30.0
        )
    return MeasurementPlan(
        name=name, runtime=runtime, threads=threads, min_runs=662, min_seconds=60.0, max_seconds=180.0
    )
