"""The verdicts of a run and all that they rest on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from edgekd.records.artifact import Artifact, Parity
from edgekd.records.base import SCHEMA_VERSION, Record
from edgekd.records.budget import Budget
from edgekd.records.candidate import Candidate
from edgekd.records.measurement import Measurement
from edgekd.records.report_distillation import DistillationReport
from edgekd.records.report_quantization import QuantizationReport
from edgekd.records.verdict import Verdict


class Change(Record):
    """A difference of two models' accuracy over the same inputs, a fraction, with its paired interval."""

    value: float
    interval: tuple[float, float]


class SliceAccuracy(Record):
    """A class, or a slice that the task declares, of the test split.

    `accuracy` and `intervals` (95 %) are by model, as in `Accuracy`. The changes are the distilled fp32 student less
    the one from scratch, int8 less fp32, and `drop`, the teacher less int8. Their intervals hold at 95 % for all slices
    at once (Bonferroni): the slice is `hurt_by` what lies wholly below 0.
    """

    name: str
    inputs: int
    accuracy: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    distillation: Change | None = None
    quantization: Change | None = None
    drop: Change | None = None
    hurt_by: tuple[Literal["distillation", "quantization"], ...] = ()


class Accuracy(Record):
    """Shares of the test split that each model got right; None where a model was not trained.

    `student_fp32` is the student that was kept; `distilled` is there where that is the one from scratch.
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
    distilled: float | None = None
    distilled_correct: tuple[bool, ...] = ()
    slices: tuple[SliceAccuracy, ...] = ()


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
    distillation: DistillationReport | None = None
    quantization: QuantizationReport | None = None
    measurement: Measurement | None = None
    units: tuple[Measurement, ...] = Field(
        default=(), description="every board's, where several were measured; `measurement` is the first of them"
    )
    data: dict[str, Any] = Field(default={}, description="the task's splits: sizes, how they were made, hashes")
