"""Puts a report together and writes it in all its forms."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import edgekd
from edgekd.core.statistics import paired_difference_interval
from edgekd.core.verdicts import exit_code, judge
from edgekd.pipeline.settings import Settings
from edgekd.records import INT8_SCHEMES, Artifact, Budget, Measurement, Report, Stage, Verdict
from edgekd.store import RunDirectory
from edgekd.tasks import Task

if TYPE_CHECKING:
    from edgekd.pipeline.fitting.run import Fit


def utc_text() -> str:
    """The time now, in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def deployed_size(artifacts: Sequence[Artifact], runtime: str) -> int | None:
    """Bytes of the int8 file, with or without layers in float, that a runtime is given."""
    sizes = [
        artifact.size_bytes for artifact in artifacts if artifact.format == runtime and artifact.scheme in INT8_SCHEMES
    ]
    return sizes[0] if sizes else None


def warnings_about(found: Fit, budget: Budget) -> list[str]:
    """What a reader must not overlook: what the stages said, slices that were hurt, gains that did not hold."""
    warnings, accuracy = list(found.warnings), found.evaluated.accuracy
    if accuracy.scratch_correct and found.distillation.kept == "distilled":
        low, high = paired_difference_interval(accuracy.student_fp32_correct, accuracy.scratch_correct)
        if high <= 0:
            warnings.append(
                f"distillation did not pay here: the same student trained on labels alone, for the same steps, is "
                f"better by {-high:.4f} to {-low:.4f} on the test split, though not on the validation split, which "
                "decides"
            )
    if accuracy.scratch_correct:
        low, high = paired_difference_interval(accuracy.teacher_correct, accuracy.scratch_correct)
        if low <= 0:
            warnings.append(
                f"the teacher is not better than the student trained without it, beyond noise ({low:+.4f} to "
                f"{high:+.4f}): a better teacher may help more than a better student"
            )
    warnings += [f"{one.name}: hurt beyond its noise by {cause}" for one in accuracy.slices for cause in one.hurt_by]
    if budget.energy_mj is not None or budget.power_w is not None:
        warnings.append("energy and power are not predicted: only a board with a power sensor can decide them")
    return warnings


def fit_report(
    settings: Settings,
    task: Task,
    found: Fit,
    stages: Sequence[Stage],
    *,
    seed: int,
    require_measured: bool,
    command: str,
) -> Report:
    """The report of a fit: costs are judged on predictions, accuracy and file size on what was measured."""
    candidate, accuracy, built = found.selected.candidate, found.evaluated.accuracy, found.evaluated.built
    verdicts = judge(
        settings.budget,
        measurement=None,
        predicted=candidate.predicted,
        accuracy=accuracy,
        file_size_bytes=deployed_size(built.artifacts, settings.profile.operating_point.runtime),
        scheme=found.quantization.scheme,
    )
    return Report(
        edgekd_version=edgekd.__version__,
        created_utc=utc_text(),
        command=command,
        profile=settings.profile.name,
        task=task.name,
        seed=seed,
        budget=settings.budget,
        budget_source=settings.budget_source,
        verdicts=verdicts,
        exit_code=exit_code(verdicts, require_measured),
        student=candidate,
        artifacts=built.artifacts,
        accuracy=accuracy,
        parity=built.parity,
        stages=tuple(stages),
        warnings=tuple(warnings_about(found, settings.budget)),
        distillation=found.distillation,
        quantization=found.quantization,
        data=_data(task),
    )


def _data(task: Task) -> dict[str, Any]:
    return {
        "classes": list(task.classes),
        "input_shape": list(task.input_shape),
        "preprocessing": task.preprocessing,
        "notes": list(task.notes),
        "train": len(task.train),
        "validation": len(task.validation),
        "test": len(task.test),
        "sha256": task.content_hash(),
    }


def write(run: RunDirectory, report: Report) -> None:
    """Write `report.html` and then `report.json`, so that a report that is there always has its page."""
    from edgekd.report import render_html

    run.write_html(render_html(report))
    run.write_report(report)


def measured_report(
    before: Report,
    budget: Budget,
    budget_source: dict[str, str],
    profile_name: str,
    measurement: Measurement | None,
    verdicts: tuple[Verdict, ...],
    command: str,
) -> Report:
    """A run's report with a board's measurement in it, judged on that alone."""
    return before.model_copy(
        update={
            "created_utc": utc_text(),
            "command": command,
            "profile": profile_name,
            "budget": budget,
            "budget_source": budget_source,
            "verdicts": verdicts,
            "exit_code": exit_code(verdicts),
            "measurement": measurement,
        }
    )
