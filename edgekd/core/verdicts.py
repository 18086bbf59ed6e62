"""Judging a budget: one verdict a constraint, from what was measured or predicted.

A whole interval on the right side of the limit is `met`, wholly on the wrong side `missed`, straddling it
`inconclusive`. What was neither measured nor predicted is `not_measured`. Neither of the last two is a pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from edgekd.core.evidence import Evidence, measured_evidence, timing_evidence
from edgekd.core.statistics import at_95_percent, paired_difference_interval, proportion_interval
from edgekd.errors import EXIT_MET, EXIT_MISSED, EXIT_UNDECIDED
from edgekd.records import (
    LATENCY_PERCENTILES,
    Accuracy,
    Basis,
    Budget,
    Change,
    Estimate,
    Measurement,
    Outcome,
    Scheme,
    Verdict,
)

KIB = 2**10
LOOKING_CONFIDENCE = 0.99
"""How sure one has to be to stop measuring early: see `undecided`."""

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
    "slice_accuracy_drop_max": Constraint("Accuracy drop in the worst slice", "points", on_board=False),
    "energy_mj": Constraint("Energy per inference", "mJ"),
    "power_w": Constraint("Power", "W"),
}


def judge(
    budget: Budget,
    *,
    measurement: Measurement | None,
    predicted: Mapping[str, Estimate],
    accuracy: Accuracy,
    file_size_bytes: int | None,
    profile_matches: bool = True,
    basis_allowed: Set[Basis] = BOTH_BASES,
    scheme: Scheme = "wi8_ai8",
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
        scheme: of the student's file; one with layers in float is named in the reasons.
    """
    verdicts = []
    file = f"the {'int8' if scheme == 'wi8_ai8' else scheme} file"
    for name, limit in budget.constraints().items():
        found: Evidence | str
        if not CONSTRAINTS[name].on_board:
            found = (
                _file_size(file_size_bytes, file)
                if name == "file_size_kib"
                else _named(_accuracy(name, limit, accuracy, measurement), scheme)
            )
        elif measurement is not None and not profile_matches:
            why = measurement.mismatch_reason or "it is of another kind"
            found = f"measured on {measurement.board}, which is not the profile's board: {why}"
        elif measurement is not None:
            found = measured_evidence(name, budget, measurement)
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
        if _decide(name, limit, timing_evidence(name, groups, LOOKING_CONFIDENCE)).outcome == "inconclusive":
            return True
    return False


def _decide(name: str, limit: float, evidence: Evidence) -> Verdict:
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


def _outcome(constraint: Constraint, limit: float, evidence: Evidence) -> tuple[Outcome, str]:
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


def _predicted(estimate: Estimate | None) -> Evidence | str:
    if estimate is None:
        return "nothing predicts it and nothing was measured: `edgekd deploy` measures it"
    note = f"predicted: {estimate.source}"
    interval = at_95_percent(estimate)
    if interval != (estimate.low, estimate.high):
        note += f" (its {100 * estimate.confidence:g} % interval widened to 95 %)"
    return Evidence(estimate.value, interval, "predicted", note, advice="`edgekd deploy` measures it")


def _named(found: Evidence | str, scheme: Scheme) -> Evidence | str:
    """Evidence that says so where the student is not all of int8."""
    if isinstance(found, str) or scheme != "wi8_ai8_mixed":
        return found
    return replace(found, note=f"{found.note}; the student is {scheme}: some layers are in float")


def _file_size(size_bytes: int | None, file: str) -> Evidence | str:
    if size_bytes is None:
        return "there is no int8 file"
    size = size_bytes / KIB
    return Evidence(size, (size, size), "measured", file)


def _accuracy(name: str, limit: float, accuracy: Accuracy, measurement: Measurement | None) -> Evidence | str:
    student, right = accuracy.student_int8, accuracy.student_int8_correct
    if student is None or not (right or accuracy.inputs):
        return "the int8 student was not evaluated on the test split"
    note = f"{len(right) or accuracy.inputs} inputs of the test split"
    if name == "accuracy_min" and measurement is not None and measurement.accuracy is not None:
        note += f"; on {measurement.board} {100 * measurement.accuracy:.2f} % of {measurement.accuracy_inputs} inputs"
    advice = "more test inputs would decide it"
    if name == "slice_accuracy_drop_max":
        return _slice(limit, accuracy)
    if name == "accuracy_min":
        total = len(right) or accuracy.inputs
        interval = proportion_interval(sum(right) if right else round(student * total), total)
        return Evidence(student, interval, "measured", note, advice=advice)
    if accuracy.teacher is None:
        return "there is no teacher's accuracy to compare with"
    drop = accuracy.teacher - student
    if not right or len(right) != len(accuracy.teacher_correct):
        blocked = "the answers of teacher and student on the same inputs were not kept: no paired interval"
        return Evidence(drop, None, "measured", note, blocked)
    paired = paired_difference_interval(accuracy.teacher_correct, right)
    return Evidence(drop, paired, "measured", note, advice=advice)


def _slice(limit: float, accuracy: Accuracy) -> Evidence | str:
    """The drop, in percentage points, of the slice that decides: of those missed, else open, else met, the worst.

    The intervals hold at 95 % for all slices at once, so that the choice of the worst does not spoil them.
    """
    drops = [(one, one.drop) for one in accuracy.slices if one.drop is not None]
    if not drops:
        return "the answers of teacher and int8 student were not kept by class and slice"

    def rank(drop: Change) -> tuple[int, float]:
        low, high = drop.interval
        return (2 if 100 * low > limit else 1 if 100 * high > limit else 0), drop.value

    worst, drop = max(drops, key=lambda pair: rank(pair[1]))
    more = sum(rank(other)[0] > 0 for one, other in drops if one is not worst)
    note = f"worst slice: {worst.name} ({worst.inputs} inputs), of {len(drops)}; the intervals hold for all at once"
    if more:
        note += f"; {more} more are or may be beyond the limit"
    low, high = drop.interval
    advice = "more test inputs of this slice would decide it"
    return Evidence(100 * drop.value, (100 * low, 100 * high), "measured", note, advice=advice)
