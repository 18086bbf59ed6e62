"""A report's numbers and judgements in words: what terminal and page have in common."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.core.evidence import samples_by_process
from edgekd.core.statistics import Interval, paired_difference_interval, percentile, percentile_interval
from edgekd.core.statistics import proportion_interval as proportion
from edgekd.core.verdicts import CONSTRAINTS
from edgekd.records import Accuracy, Measurement, Outcome, Report, Verdict

OUTCOME_WORDS: dict[Outcome, str] = {
    "met": "met",
    "missed": "missed",
    "inconclusive": "inconclusive",
    "not_measured": "not measured",
}
ABSENT = "–"
PERCENTILES = (50, 90, 99)


def plain(text: object) -> str:
    """A foreign string (of a board, a task, a file) without what could act on a terminal or hide its meaning.

    Control characters, escape sequences among them, and marks that reorder text become U+FFFD.
    """
    return "".join(
        "\ufffd" if unicodedata.category(letter) in ("Cc", "Cf", "Cs") and letter != "\n" else letter
        for letter in str(text)
    )


def number(value: float) -> str:
    """A figure with three significant digits, or all before the point; an exponent only below 0.0001."""
    size = abs(value)
    if value == 0 or size >= 100:
        return f"{value:,.0f}"
    if size < 1e-4:
        return f"{value:.2e}"
    return f"{value:.{2 - math.floor(math.log10(size))}f}"


def quantity(constraint: str, value: float | None) -> str:
    """A constraint's value with its unit; accuracies as percentages, their differences as points."""
    if value is None:
        return ABSENT
    if constraint == "accuracy_min":
        return f"{100 * value:.1f} %"
    if constraint == "accuracy_drop_max":
        return f"{100 * value:.1f} points"
    return f"{number(value)} {CONSTRAINTS[constraint].unit}"


def interval_text(constraint: str, interval: Interval | None, unit: bool = True) -> str:
    """An interval with its unit once (or without), or `exact` (a file's size) or `one value` where it is a point."""
    if interval is None:
        return ABSENT
    low, high = interval
    if low == high:
        return "exact" if constraint == "file_size_kib" else "one value"
    share = constraint in ("accuracy_min", "accuracy_drop_max")
    ends = [f"{100 * end:.1f}" if share else number(end) for end in (low, high)]
    return f"{ends[0]} to {ends[1]} {_unit(constraint) if unit else ''}".rstrip()


def limit_text(verdict: Verdict) -> str:
    """The limit with its side."""
    sign = "≥" if CONSTRAINTS[verdict.constraint].at_least else "≤"
    return f"{sign} {quantity(verdict.constraint, verdict.limit)}"


def margin_text(verdict: Verdict) -> str:
    """How much room is left (or is lacking), signed, in the unit in which the value is shown."""
    if verdict.margin is None:
        return ABSENT
    scale = 100 if verdict.constraint in ("accuracy_min", "accuracy_drop_max") else 1
    figure = (
        f"{verdict.margin * scale:+.1f}"
        if scale == 100
        else f"{'+' if verdict.margin >= 0 else ''}" + number(verdict.margin)
    )
    unit = "points" if scale == 100 else _unit(verdict.constraint)
    return f"{figure} {unit}"


def _unit(constraint: str) -> str:
    return {"accuracy_min": "%", "accuracy_drop_max": "points"}.get(constraint, CONSTRAINTS[constraint].unit)


def size_text(size_bytes: int) -> str:
    """A file's size in KiB, exact bytes where it is smaller."""
    return f"{size_bytes} bytes" if size_bytes < 1024 else f"{size_bytes / 1024:,.1f} KiB"


def duration_text(seconds: float) -> str:
    """Seconds, or minutes and seconds."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s"


@dataclass(frozen=True)
class Headline:
    """What someone who reads one line should know."""

    outcome: Outcome
    title: str
    evidence: str


def headline(report: Report) -> Headline:
    """Whether the budget is met, and on what evidence."""
    by_outcome: dict[Outcome, list[Verdict]] = {outcome: [] for outcome in OUTCOME_WORDS}
    for verdict in report.verdicts:
        by_outcome[verdict.outcome].append(verdict)
    evidence = _evidence(report)
    if by_outcome["missed"]:
        return Headline("missed", f"Budget missed: {_names(by_outcome['missed'])}", evidence)
    open_ = by_outcome["inconclusive"] + by_outcome["not_measured"]
    if open_ or not report.verdicts:
        what = f": {_names(open_)}" if open_ else ": no constraint was judged"
        outcome: Outcome = "inconclusive" if by_outcome["inconclusive"] else "not_measured"
        return Headline(outcome, f"Budget not decided{what}", evidence)
    if report.exit_code != 0:
        return Headline("not_measured", "Budget not decided: measurements were required", evidence)
    predicted = any(verdict.basis == "predicted" for verdict in report.verdicts)
    return Headline("met", "Budget met, as far as predicted" if predicted else "Budget met", evidence)


def _names(verdicts: Sequence[Verdict]) -> str:
    titles = [_lower_first(CONSTRAINTS[verdict.constraint].title) for verdict in verdicts]
    if len(titles) > 3:
        return f"{len(titles)} constraints, {titles[0]} first"
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"


def _lower_first(title: str) -> str:
    return title[0].lower() + title[1:]


def _evidence(report: Report) -> str:
    counts = [
        (sum(verdict.outcome == name for verdict in report.verdicts), word) for name, word in OUTCOME_WORDS.items()
    ]
    text = f"Of {len(report.verdicts)} constraints " + ", ".join(f"{n} {word}" for n, word in counts if n) + "."
    predicted = [verdict for verdict in report.verdicts if verdict.basis == "predicted"]
    if predicted:
        text += f" {len(predicted)} of the judgements rest{'s' if len(predicted) == 1 else ''} on predictions"
        text += ": no board has measured this student yet." if report.measurement is None else "."
    if report.measurement is not None:
        text += f" Measured on {measured_with(report.measurement)}."
    return text


def measured_with(measurement: Measurement) -> str:
    """What stands beside every latency: board, runtime, threads, how many samples."""
    threads = f"{measurement.threads} thread{'s' if measurement.threads != 1 else ''}"
    processes = len(set(measurement.sample_processes))
    return (
        f"{plain(measurement.board)}: {measurement.runtime} {plain(measurement.runtime_version)} "
        f"({plain(measurement.provider)}), {threads}, {measurement.runs:,} runs in {processes} processes"
    )


@dataclass(frozen=True)
class Timing:
    """A latency percentile in ms with its interval."""

    percent: int
    value: float
    interval: Interval | None


def timings(measurement: Measurement) -> list[Timing]:
    """p50, p90 and p99 of the kept samples."""
    groups = samples_by_process(measurement)
    if not groups:
        return []
    samples = [sample for group in groups for sample in group]
    return [
        Timing(percent, percentile(samples, percent), percentile_interval(groups, percent)) for percent in PERCENTILES
    ]


@dataclass(frozen=True)
class Share:
    """One model's accuracy: a fraction, with its interval where the number of inputs is known."""

    name: str
    value: float
    interval: Interval | None
    inputs: int


def accuracies(report: Report) -> list[Share]:
    """Teacher, scratch, distilled and int8 on the test split, and the int8 student on the board."""
    found, rounded = report.accuracy, rounded_word(report)
    rows = [
        ("Teacher", found.teacher),
        ("Student from scratch", found.scratch),
        ("Student distilled (not kept)", found.distilled),
        ("Student distilled, fp32" if found.distilled is None else "Student kept, fp32", found.student_fp32),
        (f"Student {rounded}", found.student_int8),
    ]
    shares = [_share(name, value, found.inputs) for name, value in rows if value is not None]
    board = report.measurement
    if board is not None and board.accuracy is not None:
        shares.append(_share(f"Student {rounded}, on the board", board.accuracy, board.accuracy_inputs))
    return shares


def _share(name: str, value: float, inputs: int) -> Share:
    return Share(name, value, proportion(round(value * inputs), inputs) if inputs else None, inputs)


def rounded_word(report: Report) -> str:
    """What the student that is deployed is called beside its float twin: int8, or mixed where layers are in float."""
    mixed = report.quantization is not None and report.quantization.scheme == "wi8_ai8_mixed"
    return "mixed" if mixed else "int8"


def comparisons(accuracy: Accuracy, rounded: str) -> list[str]:
    """What distillation gained over scratch and what int8 cost, with paired intervals where answers were kept."""
    lines = []
    distilled, answers = accuracy.distilled, accuracy.distilled_correct
    if distilled is None:
        distilled, answers = accuracy.student_fp32, accuracy.student_fp32_correct
    if accuracy.scratch is not None and distilled is not None:
        gain = distilled - accuracy.scratch
        interval = _paired(answers, accuracy.scratch_correct)
        lines.append(f"Distillation against the same student from scratch: {_points(gain, interval)}")
    if accuracy.student_fp32 is not None and accuracy.student_int8 is not None:
        change = accuracy.student_int8 - accuracy.student_fp32
        interval = _paired(accuracy.student_int8_correct, accuracy.student_fp32_correct)
        lines.append(f"{rounded} against fp32: {_points(change, interval)}")
    return lines


def _paired(first: Sequence[bool], second: Sequence[bool]) -> Interval | None:
    return paired_difference_interval(first, second) if first and len(first) == len(second) else None


def _points(change: float, interval: Interval | None) -> str:
    text = f"{100 * change:+.2f} points"
    if interval is None:
        return f"{text} (no paired interval)"
    low, high = interval
    told = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    return f"{text}, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}: {told}"


def reasons(verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    """Why the verdicts are what they are: the constraints that share a reason, in words, and the reason."""
    grouped: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.reason:
            grouped.setdefault(verdict.reason, []).append(CONSTRAINTS[verdict.constraint].title)
    return [(", ".join(titles), plain(reason)) for reason, titles in grouped.items()]
