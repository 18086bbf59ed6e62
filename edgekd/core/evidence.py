"""What a board's measurement says of each constraint, and what forbids a judgement on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgekd.core.statistics import (
    CONFIDENCE,
    Interval,
    least_samples,
    mean_interval,
    percentile,
    percentile_interval,
)
from edgekd.records import LATENCY_PERCENTILES, Basis, Budget, Contention, Measurement

MIB = 2**20
LEAST_SUSTAINED_SECONDS = 600.0
"""A sustained budget speaks of the thermal steady state; our choice of the time a passively cooled board needs."""

FOREIGN_TIME_BOUND = 0.1
"""Share of the time that others may take before a mean says nothing; our choice."""

_QUIET = "stop them, or say --background declared where they belong there"


@dataclass(frozen=True)
class Evidence:
    """What is known of one constraint. `blocked` says why no judgement can rest on it, `never_met` why no pass can."""

    value: float | None
    interval: Interval | None
    basis: Basis
    note: str = ""
    blocked: str = ""
    never_met: str = ""
    advice: str = ""


def measured_evidence(name: str, budget: Budget, measurement: Measurement) -> Evidence | str:
    """What a measurement shows of a constraint that only a board can show; words where it shows nothing."""
    if name == "peak_memory_mib":
        size = measurement.peak_memory_bytes / MIB
        note = "the maximum of one fresh process: no interval"
        return Evidence(size, (size, size), "measured", note)
    if name in ("energy_mj", "power_w"):
        found = _power(name, measurement)
    else:
        groups = samples_by_process(measurement)
        if not groups:
            return "the measurement holds no samples"
        found = timing_evidence(name, groups)
        if name == "latency_p90_ms" and measurement.plan.name == "mlperf" and measurement.early_stopping_p90_ms:
            estimate = f"MLPerf's early-stopping estimate {measurement.early_stopping_p90_ms:.4g} ms"
            found = replace(found, note=f"{found.note}; {estimate}")
        if not found.blocked:
            declared = measurement.plan.background == "declared"
            found = replace(found, blocked="" if declared else disturbance(name, measurement.contention))
    return found if isinstance(found, str) else _in_the_mode_asked_for(found, budget, measurement)


def disturbance(name: str, found: Contention | None) -> str:
    """Why others' work on the board forbids a judgement of a latency or of throughput; "" where it does not.

    A percentile stands as long as fewer runs were interrupted than lie beyond it: so many could all be slow ones. A
    mean has no such shelter: others may take at most a tenth of the time.
    """
    if found is None:
        return ""
    if found.swapped:
        return "the board swapped while measuring: free memory there"
    taken = max(found.stolen_share, found.waited_share if name == "fps" else 0.0)
    if taken > FOREIGN_TIME_BOUND:
        return f"others took {100 * taken:.0f} % of the time (bound {100 * FOREIGN_TIME_BOUND:.0f} %): {_QUIET}"
    bound = 1 - LATENCY_PERCENTILES.get(name, 0) / 100
    if found.preempted_share > bound:
        return (
            f"others interrupted {100 * found.preempted_share:.1f} % of the runs (bound {100 * bound:.0f} %): {_QUIET}"
        )
    return ""


def samples_by_process(measurement: Measurement) -> list[list[float]]:
    """The judged latency samples (ms), grouped by the process that took them, in order of first appearance."""
    groups: dict[int, list[float]] = {}
    rows = zip(measurement.samples_ms, measurement.sample_times_s, measurement.sample_processes, strict=True)
    for sample, at_s, process in rows:
        if at_s < measurement.judged_from_s or process in measurement.disturbed_processes:
            continue
        groups.setdefault(process, []).append(sample)
    return list(groups.values())


def timing_evidence(name: str, groups: Sequence[Sequence[float]], confidence: float = CONFIDENCE) -> Evidence:
    """A latency percentile, or throughput, from samples in ms grouped by process."""
    samples = [sample for group in groups for sample in group]
    note = f"{len(samples)} samples of {len(groups)} processes"
    if name == "fps":
        least, value, interval = (
            least_samples(50),
            _rate(math.fsum(samples) / len(samples)),
            mean_interval(groups, confidence),
        )
        if interval is not None:
            # The mean is no smaller than the fastest inference, whatever the normal approximation says.
            interval = _rate(interval[1]), _rate(max(interval[0], min(samples)))
    else:
        percent = LATENCY_PERCENTILES[name]
        least, value = least_samples(percent), percentile(samples, percent)
        interval = percentile_interval(groups, percent, confidence)
    blocked = ""
    if len(samples) < least:
        blocked = f"{len(samples)} samples, but at least {least} are needed: measure longer"
    elif interval is None:
        blocked = "all samples are of one process, and they are not independent: measure several"
    advice = "measure with more processes or longer (--plan standard)"
    return Evidence(value, interval, "measured", note, blocked, advice=advice)


def _rate(mean_ms: float) -> float:
    return 1000.0 / max(mean_ms, 1e-9)


def _power(name: str, measurement: Measurement) -> Evidence | str:
    trace = measurement.power
    if trace is None:
        return f"no power sensor was read on {measurement.board}"
    net = name == "energy_mj" and trace.judged == "net"
    interval = trace.net_interval_mj if net else trace.interval_mj
    value = trace.net_mj if net else trace.energy_mj
    if value is None:
        return "energy net of idle was asked for, but no idle baseline was taken"
    if name == "power_w":
        # Energy and mean power share their error: both are the integral of one trace.
        scale = trace.mean_w / trace.energy_mj if trace.energy_mj > 0 else 0.0
        value, interval = trace.mean_w, None if interval is None else (interval[0] * scale, interval[1] * scale)
    note = f"{'net of idle' if net else 'gross'}, {trace.meter}, rail {trace.rail}, grade {trace.grade}"
    evidence = Evidence(value, interval, "measured", note)
    if trace.problems:
        return replace(evidence, blocked="; ".join(trace.problems))
    if interval is None:
        return replace(evidence, blocked="the meter states no uncertainty")
    if trace.grade == "D":
        return replace(evidence, blocked="grade D is an estimate, no measurement of power")
    if trace.grade == "C":
        return replace(evidence, never_met="grade C sees only part of the board's rails, so the whole may draw more")
    return evidence


def _in_the_mode_asked_for(evidence: Evidence, budget: Budget, measurement: Measurement) -> Evidence:
    """Hold back a judgement where the board's thermal state is not the one that the budget speaks of."""
    if evidence.blocked:
        return evidence
    if budget.mode == "sustained":
        lasted = max(measurement.sample_times_s, default=0.0) - min(measurement.sample_times_s, default=0.0)
        if lasted < LEAST_SUSTAINED_SECONDS:
            blocked = f"a sustained budget needs {LEAST_SUSTAINED_SECONDS:g} s of running, this took {lasted:.0f} s"
            return replace(evidence, blocked=blocked)
        return evidence
    if measurement.throttled:
        return replace(evidence, blocked="the board throttled while measuring, so this is no burst figure: cool it")
    if measurement.throttled is None:
        return replace(evidence, note=f"{evidence.note}; the board cannot tell whether it throttled")
    return evidence
