"""The verdicts of a run and all that they rest on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from edgekd.records.artifact import Artifact, Parity
from edgekd.records.base import SCHEMA_VERSION, Record
from edgekd.records.budget import Budget
from edgekd.records.candidate import Candidate
from edgekd.records.measurement import Measurement
from edgekd.records.verdict import Verdict


class Accuracy(Record):
    """Shares of the test split that each model got right; None where a model was not trained.

    `*_correct` hold, per test input in order, whether that model was right: paired intervals come from them.
    """

    teacher: float | None = None
    scratch: float | None = None
    student_fp32: float | None = None
    student_int8: float | None = None
    inputs: int = 0
    teacher_correct: tuple[bool, ...] = ()
    scratch_correct: tuple[bool, ...] = ()
    student_fp32_correct: tuple[bool, ...] = ()
    student_int8_correct: tuple[bool, ...] = ()


class Stage(Record):
    """One finished stage of the run: what it was and what it cost."""

    name: str
    wall_s: float
    cpu_s: float
    detail: dict[str, Any] = {}


class Report(Record):
    """What `report.json` holds. `measurement` is None until the student was deployed."""

    schema_version: Literal[1] = SCHEMA_VERSION
    edgekd_version: str
    created_utc: str
    command: str
    profile: str
    task: str
    seed: int
    budget: Budget
    budget_source: dict[str, str] = Field(default={}, description="for each limit: flag, recipe or profile")
    verdicts: tuple[Verdict, ...]
    exit_code: int
    student: Candidate | None
    artifacts: tuple[Artifact, ...]
    accuracy: Accuracy
    parity: tuple[Parity, ...]
    stages: tuple[Stage, ...] = ()
    warnings: tuple[str, ...] = ()
    measurement: Measurement | None = None
    units: tuple[Measurement, ...] = Field(
        default=(), description="every board's, where several were measured; `measurement` is the first of them"
    )
    data: dict[str, Any] = Field(default={}, description="the task's splits: sizes, how they were made, hashes")
