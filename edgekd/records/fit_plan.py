"""What `edgekd fit --dry-run` prints."""

from __future__ import annotations

from typing import Any, Literal

from edgekd.records.base import SCHEMA_VERSION, NonNegative, Record
from edgekd.records.budget import Budget
from edgekd.records.candidate import Candidate
from edgekd.records.recipe import Quantization


class PlannedCandidate(Record):
    """A candidate that would be trained. `training_s`: at most so many seconds here, from a few timed steps."""

    candidate: Candidate
    training_s: NonNegative


class FitPlan(Record):
    """What a fit would do for one profile.

    `candidates` are those that would be tried first: the sizes of a ladder, for a search by halving also those that
    fill the budget. It makes at most `short_runs` runs of a few epochs. Times are upper bounds: early stopping ends
    most runs sooner. `findings` holds what was found out before training (whether int8 pays; what a board measured).
    `quantize` is what follows training.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    profile: str
    task: str
    space: str
    search: Literal["ladder", "halving"]
    budget: Budget
    considered: int
    feasible: int
    candidates: tuple[PlannedCandidate, ...]
    short_runs: int
    teacher_s: NonNegative
    quantize_s: NonNegative
    total_s: NonNegative
    findings: dict[str, Any] = {}
    quantize: Quantization = Quantization()
