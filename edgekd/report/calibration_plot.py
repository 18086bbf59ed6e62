"""The calibration's plot: predicted against measured latency, with the intervals."""

from __future__ import annotations

import io

import matplotlib as mpl
from matplotlib.figure import Figure

from edgekd.records import LatencyModel


def calibration_svg(model: LatencyModel, title: str) -> str:
    """An SVG of the model's held-out error table, both axes logarithmic, in ms.

    Raises:
        ValueError: the model has no error table.
    """
    if not model.held_out:
        raise ValueError("the model has no held-out error table to draw")
    with mpl.rc_context({"svg.hashsalt": "edgekd", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(5.2, 5.0))
        axes = figure.add_subplot()
        for row in model.held_out:
            colour = "#1f5fa8" if row.covered else "#b3261e"
            axes.plot([row.measured_ms] * 2, [row.low_ms, row.high_ms], color=colour, alpha=0.35, linewidth=1.5)
            axes.plot([row.measured_ms], [row.predicted_ms], "o", color=colour, markersize=4)
        ends = [value for row in model.held_out for value in (row.measured_ms, row.predicted_ms)]
        axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color="#777777", linewidth=1, linestyle="--")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("measured, ms")
        axes.set_ylabel(f"predicted with {100 * model.confidence:.0f} % interval, ms")
        errors = f"MAPE {model.held_out_mape_percent:.1f} %, coverage {100 * (model.interval_coverage or 0):.0f} %"
        axes.set_title(f"{title}\n{len(model.held_out)} students held out: {errors}", fontsize=10)
        figure.tight_layout()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
