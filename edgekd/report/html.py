"""A report as one self-contained page: no script, nothing fetched, every foreign string escaped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekd.core.verdicts import CONSTRAINTS
from edgekd.records import LATENCY_PERCENTILES, Measurement, Report, Verdict
from edgekd.report.measured_wording import contention_text, energy_lines, parity_text, plan_text
from edgekd.report.teaching_wording import (
    ablation_rows,
    checked_on_board,
    distillation_lines,
    float_lines,
    model_words,
    quantization_rows,
    slice_rows,
)
from edgekd.report.wording import (
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
    rounded_word,
    size_text,
    timings,
)


@dataclass(frozen=True)
class Gauge:
    """A verdict drawn as a bar: places in per cent of its length."""

    limit: float
    value: float
    low: float
    high: float
    good_from: float
    good_to: float


def render_html(report: Report) -> str:
    """The whole page as text.

    matplotlib and jinja2 are imported here, since only a page needs them.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("edgekd.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if isinstance(value, str) and not hasattr(value, "__html__") else value,
    )
    environment.filters |= {"quantity": quantity, "interval": interval_text, "size": size_text}
    environment.filters |= {"duration": duration_text, "number": number}
    template = environment.get_template("page.html.jinja")
    return template.render(
        report=report,
        head=headline(report),
        rows=[(verdict, CONSTRAINTS[verdict.constraint], gauge(verdict)) for verdict in report.verdicts],
        words=OUTCOME_WORDS,
        limit_text=limit_text,
        margin_text=margin_text,
        shares=accuracies(report),
        comparisons=comparisons(report.accuracy, rounded_word(report)),
        constraints=CONSTRAINTS,
        board=None if report.measurement is None else _board(report.measurement),
        taught=_taught(report),
        checked=checked_on_board(report),
        units=[(unit, timings(unit)) for unit in report.units],
        plots=_plots(report),
    )


def _taught(report: Report) -> dict[str, Any]:
    """Distillation, slices and quantization, ready to be laid out."""
    found, distillation, quantization = report.accuracy, report.distillation, report.quantization
    return {
        "distillation": [] if distillation is None else distillation_lines(distillation),
        "ablation": [] if distillation is None else ablation_rows(distillation),
        "tried": () if distillation is None else distillation.tried,
        "models": model_words(report),
        "rounded": rounded_word(report),
        "slices": slice_rows(found),
        "steps": [] if quantization is None else quantization_rows(quantization),
        "float_lines": [] if quantization is None else float_lines(quantization),
        "quantization": quantization,
    }


def gauge(verdict: Verdict) -> Gauge | None:
    """Where limit, value and interval stand on a bar whose good side lies left or right of the limit."""
    if verdict.value is None:
        return None
    low, high = verdict.interval or (verdict.value, verdict.value)
    start, end = min(low, verdict.limit), max(high, verdict.limit)
    room = 0.2 * (end - start) or 0.1 * abs(end) or 1.0
    start, end = start - room, end + room

    def place(x: float) -> float:
        return round(100 * (x - start) / (end - start), 2)

    limit = place(verdict.limit)
    at_least = CONSTRAINTS[verdict.constraint].at_least
    return Gauge(
        limit=limit,
        value=place(verdict.value),
        low=place(low),
        high=place(high),
        good_from=limit if at_least else 0.0,
        good_to=100.0 if at_least else limit,
    )


def _board(measurement: Measurement) -> dict[str, Any]:
    before, after = (_flat(measurement.facts.get(when, {})) for when in ("before", "after"))
    return {
        "measurement": measurement,
        "with": measured_with(measurement),
        "timings": timings(measurement),
        "facts": [(name, before.get(name, ""), after.get(name, "")) for name in dict.fromkeys([*before, *after])],
        "energy": energy_lines(measurement.power) if measurement.power else [],
        "contention": contention_text(measurement),
        "parity": parity_text(measurement.host_parity) if measurement.host_parity else "",
        "plan": plan_text(measurement),
        "throttled": {True: "yes", False: "no", None: "the board cannot tell"}[measurement.throttled],
    }


def _flat(facts: object, prefix: str = "") -> dict[str, str]:
    """Nested facts as dotted names and text; a list of plain values is one line."""
    if isinstance(facts, Mapping):
        found: dict[str, str] = {}
        for name, value in facts.items():
            found |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
        return found
    if isinstance(facts, (list, tuple)):
        return {prefix: ", ".join(str(item) for item in facts)}
    return {prefix: str(facts)}


def _plots(report: Report) -> dict[str, Any]:
    from markupsafe import Markup

    from edgekd.report import plots

    drawn: dict[str, Any] = {"beyond": [], "samples_beyond": 0}
    shares = accuracies(report)
    if shares:
        drawn["accuracy"] = Markup(plots.accuracy(shares, report.budget.accuracy_min))
    if report.quantization is not None and report.quantization.layers:
        drawn["layers"] = Markup(plots.layer_noise(report.quantization.layers))
    measurement = report.measurement
    if measurement is not None and measurement.samples_ms:
        limits = {
            f"p{percent}": limit
            for name, percent in LATENCY_PERCENTILES.items()
            if (limit := getattr(report.budget, name)) is not None
        }
        low, high = plots.latency_range(measurement, limits)
        drawn["distribution"] = Markup(plots.latency_distribution(measurement, timings(measurement), limits))
        drawn["time"] = Markup(plots.latency_over_time(measurement))
        drawn["beyond"] = [f"{name} {number(limit)} ms" for name, limit in limits.items() if not low <= limit <= high]
        drawn["samples_beyond"] = sum(not low <= sample <= high for sample in measurement.samples_ms)
    if measurement is not None and measurement.power is not None and measurement.power.trace:
        drawn["power"] = Markup(plots.power_over_time(measurement.power))
    return drawn
