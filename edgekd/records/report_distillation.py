"""What distillation brought: the teacher, the comparison with the same student from scratch, and what was tried."""

from __future__ import annotations

from typing import Any, Literal

from edgekd.records.base import Record


class Tried(Record):
    """One short run: what was tried, and the validation accuracy that it reached (None where it was cut short)."""

    objectives: tuple[str, ...]
    learning_rate: float
    parameters: dict[str, float | str]
    val_accuracy: float | None
    epochs: int


class AblationRow(Record):
    """One set of objectives over the seeds. Accuracies are of the test split, one for each seed.

    `gain_interval` is of the mean gain over scratch, 95 %, by a paired t-test over seeds; None with a single seed.
    """

    name: str
    objectives: tuple[str, ...]
    accuracies: tuple[float, ...]
    mean: float
    spread: float | None
    gain: float
    gain_interval: tuple[float, float] | None
    agreement: float | None
    ece: float | None
    seconds: float


class Ablation(Record):
    """All rows, scratch first; the seeds are of students, for all of them have the same teacher."""

    seeds: tuple[int, ...]
    rows: tuple[AblationRow, ...]


class DistillationReport(Record):
    """How the student was taught, and whether that paid against the same student from scratch at equal steps.

    The validation split decided: `kept` is `scratch` where the interval `val_gain_interval` (95 %, paired) lies below
    0. `agreement` (with the teacher's choices, right or wrong) and the calibration errors (`*ece`) are of the test
    split and of float models; those of the teacher on the validation split are before and after its calibration.
    `student_sha256` is of the stored weights of the float student that was kept and quantized.
    `chosen_because` says why the objectives are not those of the recipe, where they were chosen by short runs.
    """

    regime: str
    objectives: tuple[str, ...]
    labelled: int
    unlabelled: int = 0
    teacher_val_accuracy: float
    val_accuracy: float
    scratch_val_accuracy: float | None = None
    val_gain_interval: tuple[float, float] | None = None
    verdict: str = ""
    kept: Literal["distilled", "scratch"] = "distilled"
    student_sha256: str | None = None
    teacher_val_ece_before: float | None = None
    teacher_val_ece_after: float | None = None
    agreement: float | None = None
    ece: float | None = None
    scratch_ece: float | None = None
    notes: dict[str, Any] = {}
    chosen_because: str | None = None
    tried: tuple[Tried, ...] = ()
    ablation: Ablation | None = None
