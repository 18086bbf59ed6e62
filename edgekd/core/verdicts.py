"""Judging a budget: one verdict a constraint, from what was measured or predicted.

A whole interval on the right side of the limit is `met`, wholly on the wrong side `missed`, straddling it
`inconclusive`. What was neither measured nor predicted is `not_measured`. Neither of the last two is a pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from edgekd.core.statistics import (
    CONFIDENCE,
    Interval,
    at_95_percent,
    least_samples,
    mean_interval,
    paired_difference_interval,
    percentile,
    percentile_interval,
    proportion_interval,
)
from edgekd.errors import EXIT_MET, EXIT_MISSED, EXIT_UNDECIDED
from edgekd.records import LATENCY_PERCENTILES, Accuracy, Basis, Budget, Estimate, Measurement, Outcome, Verdict

MIB = 2**20
KIB = 2**10
LEAST_SUSTAINED_SECONDS = 600.0
"""A sustained budget speaks of the thermal steady state; our choice of the time a passively cooled board needs."""

LOOKING_CONFIDENCE = 0.99
"""How sure one has to be to stop measuring early: see `undecided`."""

FOREIGN_TIME_BOUND = 0.1
"""Share of the time that others may take before a mean says nothing; our choice."""

_QUIET = "stop them, or say --background declared where they belong there"

BOTH_BASES: frozenset[Basis] = frozenset({"measured", "predicted"})
MEASURED_ONLY: frozenset[Basis] = frozenset({"measured"})


@dataclass(frozen=True)
class Constraint:
    """What a constraint of the budget is: its words, its unit, its side, and whether only a board can show it."""

    title: str
    unit: str
    at_least: bool = False
    on_board: bool = True


CONSTRAINTS: Mapping[str, Constraint] = {
    "latency_p50_ms": Constraint("Latency p50", "ms"),
    "latency_p90_ms": Constraint("Latency p90", "ms"),
    "latency_p95_ms": Constraint("Latency p95", "ms"),
    "latency_p99_ms": Constraint("Latency p99", "ms"),
    "fps": Constraint("Throughput", "fps", at_least=True),
    "peak_memory_mib": Constraint("Peak memory", "MiB"),
    "file_size_kib": Constraint("File size", "KiB", on_board=False),
    "accuracy_min": Constraint("Accuracy", "fraction", at_least=True, on_board=False),
    "accuracy_drop_max": Constraint("Accuracy drop", "fraction", on_board=False),
    "energy_mj": Constraint("Energy per inference", "mJ"),
    "power_w": Constraint("Power", "W"),
}


@dataclass(frozen=True)
class _Evidence:
    """What is known of one constraint. `blocked` says why no judgement can rest on it, `never_met` why no pass can."""

    value: float | None
    interval: Interval | None
    basis: Basis
    note: str = ""
    blocked: str = ""
    never_met: str = ""
    advice: str = ""


def judge(
    budget: Budget,
    *,
    measurement: Measurement | None,
    predicted: Mapping[str, Estimate],
    accuracy: Accuracy,
    file_size_bytes: int | None,
    profile_matches: bool = True,
    basis_allowed: Set[Basis] = BOTH_BASES,
) -> tuple[Verdict, ...]:
    """One verdict for each constraint of the budget, in the budget's order.

    With a measurement, latency, memory, throughput, energy and power are judged on it alone; without one on
    `predicted`, where that basis is allowed. Accuracy and file size are always measured: on the host's test split,
    and on the int8 file.

    Args:
        budget: the limits.
        measurement: what a board measured, or None.
        predicted: estimates by constraint name; an interval at less than 95 % is widened to it.
        accuracy: right and wrong answers over the test split.
        file_size_bytes: size of the int8 student's file that is deployed; None where there is none.
        profile_matches: whether the board is of the profile's kind. If not, nothing of it is judged.
        basis_allowed: `deploy` allows measurements only.
    """
    verdicts = []
    for name, limit in budget.constraints().items():
        found: _Evidence | str
        if not CONSTRAINTS[name].on_board:
            found = _file_size(file_size_bytes) if name == "file_size_kib" else _accuracy(name, accuracy, measurement)
        elif measurement is not None and not profile_matches:
            why = measurement.mismatch_reason or "it is of another kind"
            found = f"measured on {measurement.board}, which is not the profile's board: {why}"
        elif measurement is not None:
            found = _measured(name, budget, measurement)
        elif "predicted" in basis_allowed:
            found = _predicted(predicted.get(name))
        else:
            found = "nothing was measured: `edgekd deploy` measures it"
        if isinstance(found, str):
            verdicts.append(Verdict(constraint=name, limit=limit, outcome="not_measured", reason=found))
        else:
            verdicts.append(_decide(name, limit, found))
    return tuple(verdicts)


def exit_code(verdicts: Sequence[Verdict], require_measured: bool = False) -> int:
    """1 where a constraint is missed, else 6 where one is undecided (or none was judged), else 0.

    With `require_measured` a verdict that rests on a prediction counts as undecided.
    """
    outcomes = {verdict.outcome for verdict in verdicts}
    if "missed" in outcomes:
        return EXIT_MISSED
    if outcomes != {"met"}:
        return EXIT_UNDECIDED
    if require_measured and any(verdict.basis != "measured" for verdict in verdicts):
        return EXIT_UNDECIDED
    return EXIT_MET


def undecided(budget: Budget, samples_ms: Sequence[Sequence[float]]) -> bool:
    """Whether a latency or throughput constraint is still open, given the samples so far, grouped by process.

    For measuring on until the budget is decided. A further process decides sooner than longer runs of the old ones.
    Who looks again and again and stops at the first good look is wrong more often than the interval says: with the
    truth at the limit, up to 11 looks at 95 % passed 6 to 17 % of simulated boards, one look 2 to 7 %. So to stop
    early takes the 99 % interval (after Haybittle and Peto's rule for clinical trials: strict looks on the way, the
    plain level at the end), which passes 3 to 8 %.
    """
    groups = [group for group in samples_ms if len(group)]
    for name, limit in budget.constraints().items():
        if name not in LATENCY_PERCENTILES and name != "fps":
            continue
        if not groups:
            return True
        if _decide(name, limit, _timing(name, groups, LOOKING_CONFIDENCE)).outcome == "inconclusive":
            return True
    return False


def _decide(name: str, limit: float, evidence: _Evidence) -> Verdict:
    constraint = CONSTRAINTS[name]
    value, interval = evidence.value, evidence.interval
    outcome, why = _outcome(constraint, limit, evidence)
    margin = None if value is None else (value - limit if constraint.at_least else limit - value)
    return Verdict(
        constraint=name,
        limit=limit,
        value=value,
        interval=interval,
        margin=margin,
        basis=evidence.basis,
        outcome=outcome,
        reason="; ".join(part for part in (why, evidence.note) if part),
    )


def _outcome(constraint: Constraint, limit: float, evidence: _Evidence) -> tuple[Outcome, str]:
    if evidence.blocked:
        return "inconclusive", evidence.blocked
    if evidence.interval is None:
        return "inconclusive", "no interval can be given"
    low, high = evidence.interval
    met = low >= limit if constraint.at_least else high <= limit
    missed = high < limit if constraint.at_least else low > limit
    if met:
        return ("inconclusive", evidence.never_met) if evidence.never_met else ("met", "")
    if missed:
        return "missed", ""
    advice = f": {evidence.advice}" if evidence.advice else ""
    return "inconclusive", f"the 95 % interval straddles the limit{advice}"


def _predicted(estimate: Estimate | None) -> _Evidence | str:
    if estimate is None:
        return "nothing predicts it and nothing was measured: `edgekd deploy` measures it"
    note = f"predicted: {estimate.source}"
    interval = at_95_percent(estimate)
    if interval != (estimate.low, estimate.high):
        note += f" (its {100 * estimate.confidence:g} % interval widened to 95 %)"
    return _Evidence(estimate.value, interval, "predicted", note, advice="`edgekd deploy` measures it")


def _measured(name: str, budget: Budget, measurement: Measurement) -> _Evidence | str:
    if name == "peak_memory_mib":
        size = measurement.peak_memory_bytes / MIB
        note = "the maximum of one fresh process: no interval"
        return _Evidence(size, (size, size), "measured", note)
    if name in ("energy_mj", "power_w"):
        found = _power(name, measurement)
    else:
        groups = samples_by_process(measurement)
        if not groups:
            return "the measurement holds no samples"
        found = _timing(name, groups)
        if name == "latency_p90_ms" and measurement.plan.name == "mlperf" and measurement.early_stopping_p90_ms:
            estimate = f"MLPerf's early-stopping estimate {measurement.early_stopping_p90_ms:.4g} ms"
            found = replace(found, note=f"{found.note}; {estimate}")
        if not found.blocked:
            found = replace(found, blocked=_disturbed(name, measurement))
    return found if isinstance(found, str) else _in_the_mode_asked_for(found, budget, measurement)


def _disturbed(name: str, measurement: Measurement) -> str:
    """Why others' work on the board forbids a judgement of a latency or of throughput; "" where it does not.

    A percentile stands as long as fewer runs were interrupted than lie beyond it: so many could all be slow ones. A
    mean has no such shelter: others may take at most a tenth of the time.
    """
    found = measurement.contention
    if found is None or measurement.plan.background == "declared":
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
        if at_s < measurement.judged_from_s:
            continue
        groups.setdefault(process, []).append(sample)
    return list(groups.values())


def _timing(name: str, groups: Sequence[Sequence[float]], confidence: float = CONFIDENCE) -> _Evidence:
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
    return _Evidence(value, interval, "measured", note, blocked, advice=advice)


def _rate(mean_ms: float) -> float:
    return 1000.0 / max(mean_ms, 1e-9)


def _power(name: str, measurement: Measurement) -> _Evidence | str:
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
    evidence = _Evidence(value, interval, "measured", note)
    if trace.problems:
        return replace(evidence, blocked="; ".join(trace.problems))
    if interval is None:
        return replace(evidence, blocked="the meter states no uncertainty")
    if trace.grade == "D":
        return replace(evidence, blocked="grade D is an estimate, no measurement of power")
    if trace.grade == "C":
        return replace(evidence, never_met="grade C sees only part of the board's rails, so the whole may draw more")
    return evidence


def _in_the_mode_asked_for(evidence: _Evidence, budget: Budget, measurement: Measurement) -> _Evidence:
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


def _file_size(size_bytes: int | None) -> _Evidence | str:
    if size_bytes is None:
        return "there is no int8 file"
    size = size_bytes / KIB
    return _Evidence(size, (size, size), "measured", "the int8 file")


def _accuracy(name: str, accuracy: Accuracy, measurement: Measurement | None) -> _Evidence | str:
    student, right = accuracy.student_int8, accuracy.student_int8_correct
    if student is None or not (right or accuracy.inputs):
        return "the int8 student was not evaluated on the test split"
    note = f"{len(right) or accuracy.inputs} inputs of the test split"
    if name == "accuracy_min" and measurement is not None and measurement.accuracy is not None:
        note += f"; on {measurement.board} {100 * measurement.accuracy:.2f} % of {measurement.accuracy_inputs} inputs"
    advice = "more test inputs would decide it"
    if name == "accuracy_min":
        total = len(right) or accuracy.inputs
        interval = proportion_interval(sum(right) if right else round(student * total), total)
        return _Evidence(student, interval, "measured", note, advice=advice)
    if accuracy.teacher is None:
        return "there is no teacher's accuracy to compare with"
    drop = accuracy.teacher - student
    if not right or len(right) != len(accuracy.teacher_correct):
        blocked = "the answers of teacher and student on the same inputs were not kept: no paired interval"
        return _Evidence(drop, None, "measured", note, blocked)
    paired = paired_difference_interval(accuracy.teacher_correct, right)
    return _Evidence(drop, paired, "measured", note, advice=advice)
