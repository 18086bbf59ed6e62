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
