"""The timed pass of one process."""

from __future__ import annotations

import gc
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

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


def latency_pass(job: dict[str, Any], model: Model, wire: Wire, sysfs: Path) -> None:
    """Warm up, then time this process's share of runs and seconds, and report between chunks."""
    sets, how = feed_sets(job, model)
    gc.collect()
    gc.freeze()
    gc.disable()
    warm_runs, fastest = warm_up(model, sets, job["warmup_runs"], job["warmup_seconds"])
    stride = job["stride"] or choose_stride(fastest, job["plan_seconds"], job["plan_runs"], job["keep"], len(sets))
    wire.send("warm", runs=warm_runs, fastest_ns=fastest, stride=stride, inputs=len(sets), inputs_from=how)
    wire.send("state", **read_state(sysfs))
    position, timed_ns, kept, last_state = 0, 0, 0, time.perf_counter_ns()
    while (position < job["min_runs"] or timed_ns < job["min_seconds"] * 1e9) and kept < job["keep"]:
        # Reporting let the caches and the clock cool down: one run that is not timed makes up for the pause.
        model.feed(sets[position % len(sets)])
        model.invoke()
        left_ns = int(job["min_seconds"] * 1e9) - timed_ns
        position, took_ns, starts, durations = time_chunk(model, sets, position, stride, job["min_runs"], left_ns)
        timed_ns += took_ns
        kept += len(starts)
        for first in range(0, len(starts), SAMPLES_A_LINE):
            part = slice(first, first + SAMPLES_A_LINE)
            wire.send("samples", start_ns=starts[part], duration_ns=durations[part])
        wire.send("progress", runs=position, timed_ns=timed_ns)
        if time.perf_counter_ns() - last_state >= STATE_EVERY_NS:
            wire.send("state", **read_state(sysfs))
            last_state = time.perf_counter_ns()
    wire.send("state", **read_state(sysfs))
    wire.send("timed", runs=position, timed_ns=timed_ns)
