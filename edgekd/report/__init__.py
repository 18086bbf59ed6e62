"""A report for people and for programs: terminal, page, JSON."""

from edgekd.records import Report
from edgekd.report.html import render_html
from edgekd.report.terminal import print_measurement, print_report


def render_json(report: Report) -> str:
    """The report as `report.json` holds it."""
    return report.model_dump_json(indent=2)


__all__ = ["print_measurement", "print_report", "render_html", "render_json"]
