"""The page's plots, as SVG that takes its colours from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edgekd.core.evidence import samples_by_process
from edgekd.records import LayerReport, Measurement, PowerTrace
from edgekd.report.wording import Share, Timing, number, plain

# Each stands for a colour of the page's style sheet, so that one drawing serves light and dark.
_INK, _MUTED, _GRID, _ACCENT, _BAD, _WARM, _PAPER = (
    "#010101",
    "#010102",
    "#010103",
    "#010104",
    "#010105",
    "#010106",
    "#010107",
)
_COLOURS = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--line)",
    _ACCENT: "var(--accent)",
    _BAD: "var(--missed)",
    _WARM: "var(--inconclusive)",
    _PAPER: "var(--card)",
}
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgekd",
    "font.size": 12,
    "font.family": "sans-serif",
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1.0,
    "axes.labelsize": 11,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "figure.dpi": 72,
}
_WIDTH_INCHES = 6.4
_POINTS_SHOWN = 1500
Floats = NDArray[np.float64]


def latency_distribution(measurement: Measurement, timings: Sequence[Timing], limits: Mapping[str, float]) -> str:
    """All samples as a histogram, each process below it as p5 to p95, quartiles and median; percentiles and limits.

    `limits` maps words ("p90") to limits in ms. Those far outside the samples are left to the caption:
    see `limits_beyond`.
    """
    groups = samples_by_process(measurement)
    samples = np.concatenate([np.asarray(group) for group in groups])
    low, high = latency_range(measurement, limits)
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH_INCHES, 2.9 + 0.22 * len(groups)), layout="constrained")
        shares = {"height_ratios": [2.4, 0.22 * len(groups) + 0.1]}
        top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw=shares)
        top.hist(samples, bins=np.linspace(low, high, 61), color=_ACCENT, alpha=0.55, linewidth=0)
        top.set_yticks([])
        top.set_ylabel("samples")
        top.spines["left"].set_visible(False)
        for row, timing in enumerate(timings):
            for axes in (top, bottom):
                axes.axvline(timing.value, color=_INK, linewidth=1)
            _note_above(top, timing.value, row, f"p{timing.percent}  {number(timing.value)} ms")
        for words, limit in limits.items():
            if low <= limit <= high:
                for axes in (top, bottom):
                    axes.axvline(limit, color=_BAD, linewidth=1.5, linestyle=(0, (4, 3)))
                text = f"limit {words}"
                place = top.get_xaxis_transform()
                top.text(limit, 0.98, text, transform=place, rotation=90, va="top", ha="right", color=_BAD, size=11)
        _processes(bottom, groups)
        bottom.set_xlim(low, high)
        bottom.set_xlabel("latency of one inference, ms")
        return _svg(figure)


def _note_above(axes: Axes, x: float, row: int, text: str) -> None:
    axes.annotate(
        text, (x, 1), xycoords=axes.get_xaxis_transform(), xytext=(3, 3 + 13 * row), textcoords="offset points", size=11
    )


def _processes(axes: Axes, groups: Sequence[Sequence[float]]) -> None:
    for row, group in enumerate(groups):
        p5, p25, p50, p75, p95 = np.percentile(group, [5, 25, 50, 75, 95])
        axes.plot([p5, p95], [row, row], color=_ACCENT, linewidth=1.5)
        axes.plot([p25, p75], [row, row], color=_ACCENT, linewidth=6, solid_capstyle="round")
        axes.plot([p50], [row], "o", color=_PAPER, markersize=4, markeredgecolor=_INK)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_yticks(range(len(groups)), [str(row + 1) for row in range(len(groups))])
    axes.set_ylabel("process")
    axes.spines["left"].set_visible(False)


def latency_range(measurement: Measurement, limits: Mapping[str, float]) -> tuple[float, float]:
    """What the distribution's axis spans, in ms: nearly all samples, and the limits that lie near them."""
    samples = np.asarray(measurement.samples_ms)
    p99 = float(np.percentile(samples, 99))
    low, high = float(samples.min()), min(float(samples.max()), 1.6 * p99)
    for limit in limits.values():
        if 0.6 * low <= limit <= 1.8 * p99:
            low, high = min(low, limit), max(high, limit)
    room = 0.04 * max(high - low, 0.02 * high, 1e-6)
    return low - room, high + room


def latency_over_time(measurement: Measurement) -> str:
    """Samples in the order they were taken, processes told apart, with temperature and clock where sampled."""
    times, samples = np.asarray(measurement.sample_times_s), np.asarray(measurement.samples_ms)
    temperatures = [
        (state.at_s, state.temperature_c) for state in measurement.states if state.temperature_c is not None
    ]
    clocks = [(state.at_s, state.clock_mhz) for state in measurement.states if state.clock_mhz is not None]
    panels = [(points, label) for points, label in ((temperatures, "°C"), (clocks, "MHz")) if points]
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH_INCHES, 2.6 + 0.8 * len(panels)), layout="constrained")
        rows = figure.subplots(
            1 + len(panels), 1, sharex=True, squeeze=False, height_ratios=[2.6] + [0.8] * len(panels)
        )
        axes = [row[0] for row in rows]
        shown = _thinned(samples)
        axes[0].plot(times[shown], samples[shown], ".", color=_ACCENT, markersize=2.5, alpha=0.7)
        axes[0].set_ylabel("ms")
        for panel, (points, label) in zip(axes[1:], panels, strict=True):
            panel.plot(*zip(*points, strict=True), color=_WARM, linewidth=1.5)
            panel.set_ylabel(label)
        for axis in axes:
            axis.grid(axis="y", color=_GRID, linewidth=0.7)
            _shade_processes(axis, times, np.asarray(measurement.sample_processes))
            for start, end in _throttled_spans(measurement):
                axis.axvspan(start, end, color=_BAD, alpha=0.18, linewidth=0)
        axes[-1].set_xlabel("seconds since the first sample")
        return _svg(figure)


def power_over_time(power: PowerTrace) -> str:
    """The power trace over the energy pass, windows with inferences shaded, idle and mean power as lines."""
    times, watts = (np.asarray(column) for column in zip(*power.trace, strict=True))
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH_INCHES, 2.4), layout="constrained")
        axes = figure.subplots()
        for window in power.windows:
            if window.runs:
                axes.axvspan(window.begin_s, window.end_s, color=_GRID, alpha=0.45, linewidth=0, zorder=0)
        shown = np.union1d(np.arange(0, len(watts), max(1, -(-len(watts) // _POINTS_SHOWN))), np.argsort(watts)[-30:])
        axes.plot(times[shown], watts[shown], color=_ACCENT, linewidth=1.0)
        for level in (power.idle_w, power.mean_w):
            if level is not None:
                axes.axhline(level, color=_MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.set_ylim(bottom=0)
        axes.set_ylabel("W")
        axes.set_xlabel("seconds since the pass began")
        axes.grid(axis="y", color=_GRID, linewidth=0.7)
        return _svg(figure)


def _thinned(samples: Floats) -> NDArray[np.intp]:
    """Indices of the samples to draw: evenly spread ones, and the slowest."""
    even = np.arange(0, len(samples), max(1, -(-len(samples) // _POINTS_SHOWN)))
    slowest = np.argsort(samples)[-30:]
    return np.union1d(even, slowest)


def _shade_processes(axes: Axes, times: Floats, processes: NDArray[np.int_]) -> None:
    starts = np.flatnonzero(np.diff(processes, prepend=processes[0] - 1))
    ends = [*starts[1:], len(times)]
    for number_, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if number_ % 2:
            axes.axvspan(times[start], times[end - 1], color=_GRID, alpha=0.45, linewidth=0, zorder=0)


def _throttled_spans(measurement: Measurement) -> list[tuple[float, float]]:
    states = measurement.states
    following = [state.at_s for state in states[1:]] + [states[-1].at_s] if states else []
    return [(state.at_s, end) for state, end in zip(states, following, strict=True) if state.throttled]


def accuracy(shares: Sequence[Share], floor: float | None) -> str:
    """Each model's accuracy with its interval; `floor` is the budget's least accuracy, a fraction."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH_INCHES, 0.9 + 0.42 * len(shares)), layout="constrained")
        axes = figure.subplots()
        for row, share in enumerate(shares):
            low, high = share.interval or (share.value, share.value)
            colour = _MUTED if share.name == "Teacher" else _ACCENT
            axes.plot([100 * low, 100 * high], [row, row], color=colour, linewidth=3, solid_capstyle="round", alpha=0.5)
            axes.plot([100 * share.value], [row], "o", color=colour, markersize=8)
            place = (6, 4)
            label = f"{100 * share.value:.1f}"
            axes.annotate(label, (100 * share.value, row), xytext=place, textcoords="offset points", size=11)
        if floor is not None:
            axes.axvline(100 * floor, color=_BAD, linewidth=1.5, linestyle=(0, (4, 3)))
            axes.text(
                100 * floor, len(shares) - 0.45, "limit", color=_BAD, size=11, ha="right", va="bottom", rotation=90
            )
        axes.set_ylim(len(shares) - 0.4, -0.7)
        axes.set_yticks(range(len(shares)), [share.name for share in shares])
        axes.margins(x=0.08)
        axes.grid(axis="x", color=_GRID, linewidth=0.7)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("right answers on the test split, %, with 95 % intervals")
        return _svg(figure)


def layer_noise(layers: Sequence[LayerReport]) -> str:
    """Signal to rounding noise behind each layer in the order of execution, and the share that its range clips."""
    rows, names = range(len(layers)), [plain(f"{layer.layer} ({layer.kind})")[-40:] for layer in layers]
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH_INCHES, 1.0 + 0.24 * len(layers)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[2.2, 1])
        for row, layer in zip(rows, layers, strict=True):
            if layer.sqnr_db is not None:
                left.plot([0, layer.sqnr_db], [row, row], color=_GRID, linewidth=1.5)
                left.plot([layer.sqnr_db], [row], "o", color=_ACCENT, markersize=6)
            right.plot([0, 100 * layer.saturated], [row, row], color=_WARM, linewidth=4, solid_capstyle="butt")
        left.set_ylim(len(layers) - 0.4, -0.6)
        left.set_yticks(rows, names, size=9)
        left.set_xlabel("signal to rounding noise, dB")
        right.set_xlabel("saturated, %")
        right.set_xlim(left=0, right=max(0.1, 110 * max(layer.saturated for layer in layers)))
        for axes in (left, right):
            axes.grid(axis="x", color=_GRID, linewidth=0.7)
            axes.spines["left"].set_visible(False)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    """The drawing alone: no prologue, name spaces or metadata (they hold addresses), sized by the page."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for stand_in, colour in _COLOURS.items():
        text = text.replace(stand_in, colour)
    return text
