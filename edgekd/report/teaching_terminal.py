"""How the student was taught and quantized, and its slices, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from edgekd.records import Report
from edgekd.report.teaching_wording import (
    ablation_rows,
    distillation_lines,
    float_lines,
    model_words,
    percent,
    quantization_rows,
    slice_rows,
)
from edgekd.report.terminal_parts import heading, item, table
from edgekd.report.wording import plain, rounded_word

SHOWN_SLICES = 14
SHOWN_LAYERS = 3


def print_distillation(report: Report, console: Console) -> None:
    """Regime, comparison with scratch on the validation split, calibration; the ablation where it was run."""
    if report.distillation is None:
        return
    heading(console, "Distillation")
    for line in distillation_lines(report.distillation):
        item(console, line)
    rows = ablation_rows(report.distillation)
    if rows and report.distillation.ablation is not None:
        seeds = len(report.distillation.ablation.seeds)
        found = table(f"Ablation, {seeds} seeds", "Mean", "Spread", "Gain, points", "95 %, paired t")
        for row in rows:
            found.add_row(*row)
        console.print(found)


def print_slices(report: Report, console: Console) -> None:
    """Accuracy by class and slice; where there are many, those that lost most to the teacher."""
    accuracy = report.accuracy
    if not accuracy.slices:
        return
    heading(console, "Slices of the test split")
    rows = list(zip(accuracy.slices, slice_rows(accuracy, intervals=False), strict=True))
    if len(rows) > SHOWN_SLICES:
        rows.sort(key=lambda pair: (not pair[0].hurt_by, -(pair[0].drop.value if pair[0].drop else 0.0)))
    drop = f"Teacher less {rounded_word(report)}"
    found = table("Slice", "Inputs", *model_words(report), drop, "", right=("Inputs",))
    for _, row in rows[:SHOWN_SLICES]:
        found.add_row(row.name, row.inputs, *row.accuracies, row.drop, Text(row.flag, style="bold yellow"))
    console.print(found)
    if len(rows) > SHOWN_SLICES:
        item(console, f"{len(rows) - SHOWN_SLICES} more slices lost less: they are in report.html and report.json")
    item(console, "points lost, with intervals that hold at 95 % for all slices at once", style="dim")


def print_quantization(report: Report, console: Console) -> None:
    """fp32, calibration and training, what each cost, and the layers that lose most."""
    found = report.quantization
    if found is None:
        return
    heading(console, f"Quantization to {found.scheme}")
    steps = table("Step", "Validation", "Time", "", right=("Time",))
    for row in quantization_rows(found):
        steps.add_row(*row)
    console.print(steps)
    item(console, f"QAT {found.qat_reason}")
    for line in float_lines(found):
        item(console, line)
    worst = sorted(found.layers, key=lambda layer: -layer.damage_nats)[:SHOWN_LAYERS]
    for layer in worst:
        noise = "no noise" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f} dB"
        item(
            console,
            f"layer {plain(layer.layer)} ({layer.kind}): rounding it alone costs {layer.damage_nats:.2g} nats; "
            f"signal to noise behind it {noise}, range {layer.low:.3g} to {layer.high:.3g}, "
            f"{percent(layer.saturated)} saturated{'; kept in float' if layer.in_float else ''}",
        )
