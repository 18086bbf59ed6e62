"""Distillation, quantization and slices in words: what terminal and page have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.records import Accuracy, Change, DistillationReport, QuantizationReport, QuantizationStep, Report
from edgekd.report.wording import ABSENT, duration_text, plain, rounded_word

MODEL_WORDS = {
    "teacher": "Teacher",
    "scratch": "Scratch",
    "distilled": "Distilled, not kept",
    "student_fp32": "fp32",
    "student_int8": "int8",
}
_STEP_WORDS = {"ptq": "PTQ (calibration alone)", "qat": "QAT (training on)", "mixed": "Mixed (worst layers in float)"}


def percent(share: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * share:.1f} %"


def points(change: Change | None) -> str:
    """A difference in percentage points with its interval."""
    if change is None:
        return ABSENT
    low, high = change.interval
    return f"{100 * change.value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def distillation_lines(found: DistillationReport) -> list[str]:
    """How the student was taught and whether that paid."""
    labels = f"{found.labelled:,} labels" + (f", {found.unlabelled:,} inputs without" if found.unlabelled else "")
    lines = [f"regime {found.regime}, {' + '.join(found.objectives)}, {labels}"]
    shares = [f"teacher {percent(found.teacher_val_accuracy)}", f"distilled {percent(found.val_accuracy)}"]
    if found.scratch_val_accuracy is not None:
        shares.append(f"from scratch at equal steps {percent(found.scratch_val_accuracy)}")
    lines.append(f"on the validation split, which decides: {', '.join(shares)}")
    if found.val_gain_interval is not None:
        low, high = (100 * end for end in found.val_gain_interval)
        lines.append(f"gain over scratch there {low:+.2f} to {high:+.2f} points (95 %, paired): {found.verdict}")
        lines.append(f"kept: the {'distilled student' if found.kept == 'distilled' else 'student from scratch'}")
    else:
        lines.append("not compared with the same student from scratch (--ablation none)")
    if found.teacher_val_ece_before is not None and found.teacher_val_ece_after is not None:
        told = f"calibration error of the teacher {percent(found.teacher_val_ece_before)}"
        if found.teacher_val_ece_after != found.teacher_val_ece_before:
            told += f", {percent(found.teacher_val_ece_after)} as it taught"
        if found.ece is not None:
            told += f"; of the distilled student {percent(found.ece)}"
        if found.scratch_ece is not None:
            told += f", from scratch {percent(found.scratch_ece)}"
        lines.append(told)
    if found.agreement is not None:
        lines.append(f"the distilled student agrees with the teacher, right or wrong, on {percent(found.agreement)}")
    if found.notes:
        lines.append(", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in found.notes.items()))
    if found.chosen_because is not None:
        lines.append(f"objectives chosen: {found.chosen_because}")
    return [plain(line) for line in lines]


def _short(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def ablation_rows(found: DistillationReport) -> list[tuple[str, str, str, str, str]]:
    """Name, mean accuracy, spread, gain over scratch, its interval: over the seeds, on the test split."""
    if found.ablation is None:
        return []
    rows = []
    for row in found.ablation.rows:
        spread = ABSENT if row.spread is None else percent(row.spread)
        interval = ABSENT
        if row.gain_interval is not None and row.name != "scratch":
            interval = " to ".join(f"{100 * end:+.1f}" for end in row.gain_interval)
        rows.append((row.name, percent(row.mean), spread, f"{100 * row.gain:+.1f}", interval))
    return rows


def quantization_rows(found: QuantizationReport) -> list[tuple[str, str, str, str]]:
    """Step, validation accuracy, time, and what is to be said of it."""
    rows = [("fp32", percent(found.fp32.validation_accuracy), "", "")]
    mixed = None if found.mixed is None else found.mixed.step
    last = "kept" if mixed is None else "mixed from here"
    for name, step in (("ptq", found.ptq), ("qat", found.qat), ("mixed", mixed)):
        if step is not None:
            kept = last if found.chosen == name else "not better, not kept" if name == "qat" else ""
            kept = "kept" if name == "mixed" else kept
            said = ", ".join(part for part in (_how(step), kept) if part)
            rows.append((_STEP_WORDS[name], percent(step.validation_accuracy), duration_text(step.seconds), said))
    return rows


def float_lines(found: QuantizationReport) -> list[str]:
    """What is in float: because it has no int8 form, or for accuracy, with what each layer bought."""
    lines = []
    if found.float_operators:
        lines.append(f"in float, without an int8 form: {', '.join(found.float_operators)}")
    if found.mixed is not None:
        lines.append(f"mixed precision {found.mixed.reason}")
        for entry in found.mixed.kept:
            before, after = entry.validation_accuracy_before, entry.validation_accuracy
            lines.append(
                f"in float: {', '.join(entry.layers)}: validation {percent(before)} to {percent(after)}, divergence "
                f"from float {entry.divergence_before_nats:.2g} to {entry.divergence_nats:.2g} nats, "
                f"{entry.more_bytes:+,} bytes of weights"
            )
    return [plain(line) for line in lines]


def _how(step: QuantizationStep) -> str:
    detail, parts = step.detail, []
    if "observer" in detail:
        parts.append(f"{detail['observer']} ranges")
    parts += [
        word for key, word in (("equalized", "equalized"), ("bias_corrected", "biases corrected")) if detail.get(key)
    ]
    if "epochs" in detail:
        parts.append(f"{detail['epochs']} epochs")
    if detail.get("ranges") == "learned":
        parts.append("learned ranges (LSQ+)")
    if "layers_in_float" in detail:
        parts.append(f"{detail['layers_in_float']} of {detail['layers']} layers in float")
    return ", ".join(parts)


@dataclass(frozen=True)
class SliceRow:
    """One slice, for people: accuracies by model in the order of `slice_models`."""

    name: str
    inputs: str
    accuracies: tuple[str, ...]
    distillation: str
    quantization: str
    drop: str
    flag: str


def slice_models(accuracy: Accuracy) -> list[str]:
    """The models of which slices tell, in order."""
    met = {model for one in accuracy.slices for model in one.accuracy}
    return [model for model in MODEL_WORDS if model in met]


def model_words(report: Report) -> list[str]:
    """What `slice_models` are called in a report's tables."""
    words = {**MODEL_WORDS, "student_int8": rounded_word(report)}
    return [words[model] for model in slice_models(report.accuracy)]


def slice_rows(accuracy: Accuracy, intervals: bool = True) -> list[SliceRow]:
    """All slices in their order: the classes, then those that the task declares."""
    models, rows = slice_models(accuracy), []
    for one in accuracy.slices:
        shares = []
        for model in models:
            text = percent(one.accuracy[model])
            if intervals:
                low, high = one.intervals[model]
                text += f" ({100 * low:.0f} to {100 * high:.0f})"
            shares.append(text)
        flag = f"hurt by {' and '.join(one.hurt_by)}" if one.hurt_by else ""
        rows.append(
            SliceRow(
                name=plain(one.name),
                inputs=f"{one.inputs:,}",
                accuracies=tuple(shares),
                distillation=points(one.distillation),
                quantization=points(one.quantization),
                drop=points(one.drop),
                flag=flag,
            )
        )
    return rows


def checked_on_board(report: Report) -> Sequence[dict[str, Any]]:
    """Candidates timed on the board before training, predicted beside measured, as the stage keeps them."""
    for stage in report.stages:
        rows = stage.detail.get("rows") if stage.name == "board-check" else None
        if rows:
            return tuple(rows)
    return ()
