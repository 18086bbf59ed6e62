"""A report on a terminal, or in a log: every judgement in words, colour only beside them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekd.core.verdicts import CONSTRAINTS
from edgekd.records import Measurement, Outcome, Report, Stage, Verdict
from edgekd.report.measured_wording import contention_text, energy_lines, parity_text, plan_text
from edgekd.report.teaching_terminal import print_distillation, print_quantization, print_slices
from edgekd.report.terminal_parts import heading, item
from edgekd.report.terminal_parts import table as new_table
from edgekd.report.wording import (
    ABSENT,
    OUTCOME_WORDS,
    accuracies,
    comparisons,
    duration_text,
    headline,
    interval_text,
    limit_text,
    margin_text,
    measured_with,
    number,
    plain,
    quantity,
    reasons,
    rounded_word,
    size_text,
    timings,
)

WIDE_COLUMNS = 104
SLOWEST = 3
_STYLES: dict[Outcome, str] = {
    "met": "bold green",
    "missed": "bold red",
    "inconclusive": "bold yellow",
    "not_measured": "bold",
}


def print_report(report: Report, console: Console) -> None:
    """Print a whole report: judgement first, then what it rests on."""
    head = headline(report)
    console.print()
    console.print(Text(head.title, style=_STYLES[head.outcome]))
    console.print(Text(head.evidence))
    made = f"profile {plain(report.profile)}, task {plain(report.task)}, seed {report.seed}, exit {report.exit_code}"
    console.print(Text(made, style="dim"))
    console.print()
    _print_verdicts(report.verdicts, console)
    _print_accuracy(report, console)
    print_distillation(report, console)
    print_slices(report, console)
    print_quantization(report, console)
    if report.measurement is None:
        heading(console, "Not measured on a board yet: `edgekd deploy RUN --board ...` does it")
    else:
        for measurement in report.units or (report.measurement,):
            _print_measured(measurement, console)
    _print_artifacts(report, console)
    _print_stages(report, console)
    for warning in report.warnings:
        item(console, f"warning: {warning}", style="yellow")


def print_measurement(measurement: Measurement | None, verdicts: Sequence[Verdict], console: Console) -> None:
    """Print the measurement of one file, and the verdicts of a budget where there is one."""
    if verdicts:
        console.print()
        _print_verdicts(verdicts, console)
    if measurement is not None:
        _print_measured(measurement, console)


def _print_verdicts(verdicts: Sequence[Verdict], console: Console) -> None:
    console.print(_verdict_table(verdicts, wide=console.width >= WIDE_COLUMNS))
    for constraints, reason in reasons(verdicts):
        item(console, f"{constraints}: {reason}")


def _verdict_table(verdicts: Sequence[Verdict], wide: bool) -> Table:
    """The verdict table; on a narrow terminal the interval stands below its value."""
    columns = ["Constraint", "Limit", "Value", "95 % interval", "Margin", "Basis", "Outcome"]
    if not wide:
        columns[2:4] = ["Value, 95 %\ninterval"]
    table = new_table(*columns)
    for verdict in verdicts:
        value = quantity(verdict.constraint, verdict.value)
        interval = interval_text(verdict.constraint, verdict.interval, unit=wide)
        stacked = value if ABSENT in (value, interval) else f"{value}\n{interval}"
        table.add_row(
            CONSTRAINTS[verdict.constraint].title,
            limit_text(verdict),
            *([value, interval] if wide else [stacked]),
            margin_text(verdict),
            verdict.basis or ABSENT,
            Text(OUTCOME_WORDS[verdict.outcome], style=_STYLES[verdict.outcome]),
        )
    return table


def _print_accuracy(report: Report, console: Console) -> None:
    shares = accuracies(report)
    if not shares:
        return
    heading(console, "Accuracy on the test split")
    table = new_table("Model", "Accuracy", "95 % interval", "Inputs", right=("Inputs",))
    for share in shares:
        table.add_row(
            share.name,
            quantity("accuracy_min", share.value),
            interval_text("accuracy_min", share.interval),
            f"{share.inputs:,}",
        )
    console.print(table)
    for line in comparisons(report.accuracy, rounded_word(report)):
        item(console, line)
    for note in report.data.get("notes", ()):
        item(console, str(note), style="dim")


def _print_measured(measurement: Measurement, console: Console) -> None:
    heading(console, f"Measured on {measured_with(measurement)}")
    if measurement.mismatch_reason:
        item(console, f"latency, memory and energy are not judged: {measurement.mismatch_reason}", style="yellow")
    table = new_table("Latency", "Value", "95 % interval", "Runtime", "Threads")
    for timing in timings(measurement):
        name = f"latency_p{timing.percent}_ms"
        table.add_row(
            f"p{timing.percent}",
            quantity(name, timing.value),
            interval_text(name, timing.interval),
            f"{measurement.runtime} {plain(measurement.runtime_version)}",
            str(measurement.threads),
        )
    console.print(table)
    mib = 2**20
    item(
        console,
        f"memory: {number(measurement.peak_memory_bytes / mib)} MiB beyond the runtime's import, "
        f"{number(measurement.peak_rss_bytes / mib)} MiB the whole process",
    )
    throttled = {True: "yes", False: "no", None: "the board cannot tell"}[measurement.throttled]
    stride = "" if measurement.sample_stride == 1 else f"; every {measurement.sample_stride}th sample was kept"
    item(console, f"plan {plan_text(measurement)}; throttled: {throttled}{stride}")
    if contention := contention_text(measurement):
        item(console, contention)
    if measurement.plan.name == "mlperf" and measurement.early_stopping_p90_ms is not None:
        estimate = number(measurement.early_stopping_p90_ms)
        item(console, f"p90 by MLPerf's early stopping (99 % confident bound): {estimate} ms")
    if measurement.end_to_end_p50_ms is not None and measurement.end_to_end_p90_ms is not None:
        middle, high = number(measurement.end_to_end_p50_ms), number(measurement.end_to_end_p90_ms)
        item(console, f"from input to class, in Python: p50 {middle} ms, p90 {high} ms")
    if measurement.power is not None:
        for line in energy_lines(measurement.power):
            item(console, f"energy: {line}")
    if measurement.host_parity is not None:
        item(console, f"outputs: {parity_text(measurement.host_parity)}")
    for operator in sorted(measurement.per_operator, key=lambda operator: -operator.share)[:SLOWEST]:
        name = f"{plain(operator.kind)} {plain(operator.name)[:60]}"
        item(console, f"operator {name}: {number(operator.mean_ms)} ms, {100 * operator.share:.0f} %")
    if measurement.cold_start_ms is not None:
        item(console, f"first inference (cold start): {number(measurement.cold_start_ms)} ms")
    if measurement.accuracy is not None:
        item(console, f"right on the board: {100 * measurement.accuracy:.2f} % of {measurement.accuracy_inputs} inputs")
    for note in measurement.notes:
        item(console, f"note: {note}", style="yellow")


def _print_artifacts(report: Report, console: Console) -> None:
    if not report.artifacts:
        return
    heading(console, "The student")
    if report.student is not None:
        student = report.student
        console.print(
            Text(plain(f"{student.space}: {student.label}")),
            Text(f"{student.parameters:,} parameters, {student.macs / 1e6:.3f} million multiply-accumulates"),
            sep="\n",
        )
    table = new_table("File", "Scheme", "Size", "sha256", right=("Size",))
    for artifact in report.artifacts:
        size = size_text(artifact.size_bytes)
        table.add_row(plain(artifact.path), artifact.scheme, size, f"{artifact.sha256[:12]}…")
    console.print(table)
    for parity in report.parity:
        item(
            console,
            f"parity {parity.pair}: same top-1 on {100 * parity.top1_agreement:.2f} % of {parity.inputs} inputs, "
            f"at most {parity.max_abs_lsb} LSB apart (mean {parity.mean_abs_lsb:.3f})",
        )


BEFORE_TRAINING = ("board-check", "int8-pays")


def _print_stages(report: Report, console: Console) -> None:
    if not report.stages:
        return
    heading(console, "Stages")
    numbers = ("Time", "CPU time", "Steps", "Validation")
    table = new_table("Stage", *numbers, right=numbers)
    for stage in report.stages:
        if stage.name in BEFORE_TRAINING:
            continue
        accuracy, steps = stage.detail.get("validation_accuracy"), stage.detail.get("steps")
        table.add_row(
            plain(stage.name),
            duration_text(stage.wall_s),
            duration_text(stage.cpu_s),
            "" if steps is None else f"{steps:,}",
            "" if accuracy is None else f"{100 * accuracy:.1f} %",
        )
    console.print(table)
    for stage in report.stages:
        if "chosen" in stage.detail:
            item(console, f"{stage.detail['chosen']} was chosen: {stage.detail.get('reason', '')}")
        elif stage.name in BEFORE_TRAINING:
            _print_before_training(stage, console)


def _print_before_training(stage: Stage, console: Console) -> None:
    """What was found out before training: candidates predicted and measured side by side; whether int8 pays."""
    rows = stage.detail.get("rows", ())
    if rows:
        columns = ("Predicted ms", "Measured ms")
        table = new_table("Timed before training (quiet medians)", *columns, right=columns)
        for row in rows:
            name = row["candidate"] if row["kept"] else f"{row['candidate']} (dropped: {row['reason']})"
            table.add_row(plain(name), f"{row['predicted_ms']:.4g}", f"{row['measured_ms']:.4g}")
        console.print(table)
    if "reason" in stage.detail:
        item(console, str(stage.detail["reason"]))
