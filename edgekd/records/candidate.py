"""One student architecture and what it is predicted to cost."""

from __future__ import annotations

from typing import Any

from edgekd.records.base import Estimate, PositiveInt, Record


class Candidate(Record):
    """A choice from a student space. `predicted` maps a budget constraint's name to its estimate."""

    space: str
    choices: dict[str, Any]
    parameters: PositiveInt
    macs: PositiveInt
    predicted: dict[str, Estimate]

    @property
    def label(self) -> str:
        """The choices on one line, for people."""
        return " ".join(f"{name}={value}" for name, value in self.choices.items())


class Relaxation(Record):
    """The nearest student to a budget that nothing meets, were one constraint relaxed alone.

    `needed` is the limit at which `candidate` would fit: the unfavourable end of its predicted interval. `reason`
    says so where other constraints would have to be relaxed as well.
    """

    constraint: str
    limit: float
    needed: float
    candidate: Candidate
    reason: str = ""
