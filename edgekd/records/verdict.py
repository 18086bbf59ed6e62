"""The judgement of one constraint."""

from __future__ import annotations

from typing import Literal

from edgekd.records.base import Basis, Record

Outcome = Literal["met", "missed", "inconclusive", "not_measured"]


class Verdict(Record):
    """`interval` is the 95 % interval of `value`; `margin` is how much room is left, in the limit's unit.

    A positive margin is on the right side of the limit. `basis` is None only where nothing was measured
    or predicted, and then the outcome is `not_measured`.
    """

    constraint: str
    limit: float
    value: float | None = None
    interval: tuple[float, float] | None = None
    margin: float | None = None
    basis: Basis | None = None
    outcome: Outcome
    reason: str = ""
