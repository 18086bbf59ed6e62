"""One judgement over several boards of a kind: each unit has its own verdicts, and they are joined here."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.core.verdicts import CONSTRAINTS
from edgekd.records import Outcome, Verdict

_WORST_FIRST: tuple[Outcome, ...] = ("missed", "inconclusive", "not_measured", "met")


def join_units(units: Sequence[tuple[str, Sequence[Verdict]]]) -> tuple[Verdict, ...]:
    """One verdict a constraint over all units: met only where every unit meets it.

    Value and margin are those of the unit that is furthest on the wrong side; the interval is the hull of all units'
    intervals; the reason tells the spread of the values and each unit that stands otherwise than `met`. Two units say
    little of a third: nothing is extrapolated to boards that were not measured.

    Args:
        units: a name and the verdicts of each, the same constraints in the same order.

    Raises:
        ValueError: there is no unit, or they were judged on different constraints.
    """
    if not units or len({tuple(verdict.constraint for verdict in verdicts) for _, verdicts in units}) != 1:
        raise ValueError("units are joined over the same constraints, and there must be one at least")
    if len(units) == 1:
        return tuple(units[0][1])
    columns = zip(*(verdicts for _, verdicts in units), strict=True)
    return tuple(
        _joined([(name, verdict) for (name, _), verdict in zip(units, column, strict=True)]) for column in columns
    )


def _joined(column: Sequence[tuple[str, Verdict]]) -> Verdict:
    verdicts = [verdict for _, verdict in column]
    outcome = min((verdict.outcome for verdict in verdicts), key=_WORST_FIRST.index)
    valued = [verdict for verdict in verdicts if verdict.value is not None]
    if not valued:
        return verdicts[0].model_copy(update={"outcome": outcome, "reason": _reasons(column)})
    worst = min(valued, key=lambda verdict: verdict.margin if verdict.margin is not None else 0.0)
    values = [verdict.value for verdict in valued if verdict.value is not None]
    intervals = [verdict.interval for verdict in valued if verdict.interval is not None]
    hull = (min(low for low, _ in intervals), max(high for _, high in intervals)) if intervals else None
    unit = CONSTRAINTS[worst.constraint].unit
    spread = f"{len(column)} units: {min(values):.4g} to {max(values):.4g} {unit}"
    if CONSTRAINTS[worst.constraint].on_board and len(valued) > 1 and min(values) > 0:
        spread += f" (the largest {100 * (max(values) / min(values) - 1):.1f} % above the smallest)"
    elif not CONSTRAINTS[worst.constraint].on_board:
        spread = ""
    reason = "; ".join(part for part in (spread, _reasons(column)) if part)
    return worst.model_copy(update={"outcome": outcome, "interval": hull, "reason": reason})


def _reasons(column: Sequence[tuple[str, Verdict]]) -> str:
    """What each unit says that is not met; said once where all say the same."""
    said = {verdict.reason for _, verdict in column}
    if len(said) == 1:
        return said.pop()
    return "; ".join(
        f"{name}: {verdict.outcome}, {verdict.reason}" for name, verdict in column if verdict.outcome != "met"
    )
