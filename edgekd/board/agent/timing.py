"""The timed pass of one process."""

from __future__ import annotations

import gc
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .contention import Contention
from .passes import feed_sets
from .runtimes import Model
from .state import read_state
from .wire import Wire

CHUNK_NS = 500_000_000
STATE_EVERY_NS = 1_000_000_000
SAMPLES_A_LINE = 1000
# A later run may be faster than the fastest of the warm-up; the stride leaves room for that.
ESTIMATE_MARGIN = 1.25


def choose_stride(fastest_ns: int, seconds: float, least_runs: int, keep: int, inputs: int) -> int:
    """The fixed stride at which at most `keep` samples come from that many seconds.

    It shares no factor with the number of inputs: otherwise only some of the inputs would ever be kept.
    """
    expected = max(least_runs, ESTIMATE_MARGIN * seconds * 1e9 / max(fastest_ns, 1))
    stride = max(1, math.ceil(expected / keep))
    while stride > 1 and math.gcd(stride, inputs) != 1:
        stride += 1
    return stride


def warm_up(model: Model, sets: list[list[np.ndarray]], runs: int, seconds: float) -> tuple[int, int]:
    """Run until both are reached; returns how many runs it took and the fastest, in ns."""
    began = time.perf_counter_ns()
    done, fastest = 0, 2**62
    while done < runs or time.perf_counter_ns() - began < seconds * 1e9:
        model.feed(sets[done % len(sets)])
        started = time.perf_counter_ns()
        model.invoke()
        fastest = min(fastest, time.perf_counter_ns() - started)
        done += 1
    return done, fastest


def time_chunk(
    model: Model, sets: list[list[np.ndarray]], position: int, stride: int, least_runs: int, least_ns: int
) -> tuple[int, int, list[int], list[int]]:
    """Timed runs back to back, until CHUNK_NS is over or the share is done.

    Only the invocation lies between the two readings of the clock. Nothing is written, read or allocated for the
    host meanwhile.

    Returns:
        The position after it, the time it took, and starts and durations of the kept samples, in ns.
    """
    feed, invoke, clock, count = model.feed, model.invoke, time.perf_counter_ns, len(sets)
    starts: list[int] = []
    durations: list[int] = []
    began = clock()
    finished = began
    while finished - began < CHUNK_NS and not (position >= least_runs and finished - began >= least_ns):
        feed(sets[position % count])
        started = clock()
        invoke()
        finished = clock()
        if position % stride == 0:
            starts.append(started)
            durations.append(finished - started)
        position += 1
    return position, finished - began, starts, durations


def time_paced_chunk(
    model: Model, sets: list[list[np.ndarray]], position: int, stride: int, period_ns: int, least_ns: int
) -> tuple[int, int, list[int], list[int], int]:
    """Timed runs at the times at which inputs arrive, for CHUNK_NS at least; between them this process sleeps.

    An input that arrives while the one before is worked on waits. One whose result comes later than the next arrival
    has missed its deadline.

    Returns:
        What `time_chunk` does, and the number of missed deadlines.
    """
    feed, invoke, clock, count = model.feed, model.invoke, time.perf_counter_ns, len(sets)
    starts: list[int] = []
    durations: list[int] = []
    missed = 0
    began = clock()
    finished, arrival = began, began
    while finished - began < min(CHUNK_NS, max(least_ns, 1)):
        arrival += period_ns
        time.sleep(max(0.0, (arrival - clock()) / 1e9))
        feed(sets[position % count])
        started = clock()
        invoke()
        finished = clock()
        missed += finished > arrival + period_ns
        if position % stride == 0:
            starts.append(started)
            durations.append(finished - started)
        position += 1
    return position, finished - began, starts, durations, missed


@dataclass
class _Progress:
    """How far the timed pass of this process has come."""

    position: int = 0
    timed_ns: int = 0
    kept: int = 0
    missed: int = 0


def latency_pass(job: dict[str, Any], model: Model, wire: Wire, sysfs: Path) -> None:
    """Warm up, then time this process's share of runs and seconds, and report between chunks."""
    sets, how = feed_sets(job, model)
    gc.collect()
    gc.freeze()
    gc.disable()
    warm_runs, fastest = warm_up(model, sets, job["warmup_runs"], job["warmup_seconds"])
    period_ns = int(1e9 / job["rate_hz"]) if job["rate_hz"] else 0
    pace_ns = max(fastest, period_ns)
    stride = job["stride"] or choose_stride(pace_ns, job["plan_seconds"], job["plan_runs"], job["keep"], len(sets))
    wire.send("warm", runs=warm_runs, fastest_ns=fastest, stride=stride, inputs=len(sets), inputs_from=how)
    wire.send("state", **read_state(sysfs))
    done, contention, last_state = _Progress(), Contention(), time.perf_counter_ns()
    while _goes_on(job, done):
        if not period_ns:
            # Reporting let the caches and the clock cool down: one run that is not timed makes up for the pause.
            model.feed(sets[done.position % len(sets)])
            model.invoke()
        contention.begin()
        starts, durations = _one_chunk(job, model, sets, stride, period_ns, done)
        contention.end()
        for first in range(0, len(starts), SAMPLES_A_LINE):
            part = slice(first, first + SAMPLES_A_LINE)
            wire.send("samples", start_ns=starts[part], duration_ns=durations[part])
        wire.send("progress", runs=done.position, timed_ns=done.timed_ns, missed=done.missed)
        if time.perf_counter_ns() - last_state >= STATE_EVERY_NS:
            wire.send("state", **read_state(sysfs))
            last_state = time.perf_counter_ns()
    wire.send("state", **read_state(sysfs))
    wire.send("contention", runs=done.position, **contention.report())
    wire.send("timed", runs=done.position, timed_ns=done.timed_ns, missed=done.missed)


def _goes_on(job: dict[str, Any], done: _Progress) -> bool:
    if done.kept >= job["keep"] or done.timed_ns >= job["max_seconds"] * 1e9 and done.position:
        return False
    return bool(done.position < job["min_runs"] or done.timed_ns < job["min_seconds"] * 1e9)


def _one_chunk(
    job: dict[str, Any], model: Model, sets: list[list[np.ndarray]], stride: int, period_ns: int, done: _Progress
) -> tuple[list[int], list[int]]:
    """Time one chunk and add it to what is done; returns the kept samples."""
    left_ns = int(job["min_seconds"] * 1e9) - done.timed_ns
    if period_ns:
        left_ns = max(left_ns, (job["min_runs"] - done.position) * period_ns)
        done.position, took_ns, starts, durations, missed = time_paced_chunk(
            model, sets, done.position, stride, period_ns, left_ns
        )
        done.missed += missed
    else:
        done.position, took_ns, starts, durations = time_chunk(
            model, sets, done.position, stride, job["min_runs"], left_ns
        )
    done.timed_ns += took_ns
    done.kept += len(starts)
    return starts, durations
