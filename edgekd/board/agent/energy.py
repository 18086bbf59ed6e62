"""The energy pass: idle windows, then windows of inferences, while a process of its own reads the meter.

Windows of one kind follow each other without a break, inside a longer stretch of the same doing: so a sensor that
averages, or a clock that is a little off, brings nothing foreign in at their edges.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..power.meters import choose
from ..power.source import MeterFailure, Source
from .contention import busy_and_stolen_ns, own_cpu_ns
from .passes import feed_sets
from .runtimes import Model
from .sampler import Sampler
from .state import read_state
from .timing import warm_up
from .wire import AgentError, Wire

READINGS_A_LINE = 1000
# Idle is taken before and after the work, so that a baseline that drifts with temperature is seen.
SHARE_BEFORE = 0.6


def find_meter(job: dict[str, Any], wire: Wire, sysfs: Path) -> Source | None:
    """The meter asked for, told to the host; None where it reads one itself, or where there is none."""
    if job["meter"] == "host":
        return None
    try:
        source, problems = choose(job["meter"], sysfs)
    except MeterFailure as error:
        raise AgentError("meter", str(error)) from error
    if source is None:
        wire.send("no_meter", problems=problems)
        return None
    wire.send(
        "meter",
        meter=source.meter,
        rail=source.rail,
        grade=source.grade,
        resolution_w=source.resolution_w,
        gain=source.gain,
        counts=source.counts,
        problems=problems,
    )
    return source


def energy_pass(job: dict[str, Any], model: Model, wire: Wire, sysfs: Path) -> None:
    """Idle, run, idle; the host integrates. Nothing is done where `auto` finds no meter."""
    source = find_meter(job, wire, sysfs)
    if source is None and job["meter"] != "host":
        return
    sets, _ = feed_sets(job, model)
    gc.collect()
    gc.freeze()
    gc.disable()
    warm_up(model, sets, job["warmup_runs"], job["warmup_seconds"])
    sampler = Sampler(source, sysfs) if source is not None else None
    try:
        _phases(job, model, sets, wire, sysfs, sampler)
    finally:
        if sampler is not None:
            sampler.close()


def _phases(
    job: dict[str, Any], model: Model, sets: list[Any], wire: Wire, sysfs: Path, sampler: Sampler | None
) -> None:
    count, seconds, lead_s = job["windows"], job["window_seconds"], job["lead_seconds"]
    before = round(count * SHARE_BEFORE)
    work = _paced(model, sets, job["rate_hz"]) if job.get("rate_hz") else _back_to_back(model, sets)
    wire.send("state", **read_state(sysfs))
    for phase, do, windows in (("idle", _rest, before), ("active", work, count), ("idle", _rest, count - before)):
        if not windows:
            continue
        do(time.perf_counter_ns() + int(lead_s * 1e9))
        wire.send("state", **read_state(sysfs))
        # Reading the state is other work: it must not stand at the edge of a window.
        do(time.perf_counter_ns() + int(lead_s * 1e9 / 2))
        for _ in range(windows):
            _window(phase, do, seconds, wire)
        do(time.perf_counter_ns() + int(lead_s * 1e9))
        wire.send("state", **read_state(sysfs))
        if sampler is not None:
            _hand_over(sampler, wire)


def _window(phase: str, do: Callable[[int], int], seconds: float, wire: Wire) -> None:
    busy, own = busy_and_stolen_ns()[0], own_cpu_ns()
    begin = time.perf_counter_ns()
    runs = do(begin + int(seconds * 1e9))
    end = time.perf_counter_ns()
    wire.send(
        "window",
        phase=phase,
        begin_ns=begin,
        end_ns=end,
        runs=runs,
        busy_ns=max(0, busy_and_stolen_ns()[0] - busy),
        own_ns=own_cpu_ns() - own,
    )


def _rest(until_ns: int) -> int:
    """Sleep; no inference runs."""
    time.sleep(max(0.0, (until_ns - time.perf_counter_ns()) / 1e9))
    return 0


def _back_to_back(model: Model, sets: list[Any]) -> Callable[[int], int]:
    position, count, clock = 0, len(sets), time.perf_counter_ns

    def work(until_ns: int) -> int:
        nonlocal position
        runs = 0
        while clock() < until_ns:
            model.feed(sets[position % count])
            model.invoke()
            position += 1
            runs += 1
        return runs

    return work


def _paced(model: Model, sets: list[Any], rate_hz: float) -> Callable[[int], int]:
    """Inferences that arrive at a rate; between them the board may rest."""
    period_ns, position, clock = int(1e9 / rate_hz), 0, time.perf_counter_ns
    arrival = clock()

    def work(until_ns: int) -> int:
        nonlocal position, arrival
        runs = 0
        # Arrivals that fell into a pause between windows are gone, as a camera's frames would be.
        arrival = max(arrival, clock())
        while arrival < until_ns:
            time.sleep(max(0.0, (arrival - clock()) / 1e9))
            model.feed(sets[position % len(sets)])
            model.invoke()
            position += 1
            runs += 1
            arrival += period_ns
        time.sleep(max(0.0, (until_ns - clock()) / 1e9))
        return runs

    return work


def _hand_over(sampler: Sampler, wire: Wire) -> None:
    at_ns, values, missed = sampler.collect()
    for first in range(0, len(at_ns), READINGS_A_LINE):
        part = slice(first, first + READINGS_A_LINE)
        wire.send("power", at_ns=at_ns[part], values=values[part], missed=missed if first == 0 else 0)
