"""A report as one self-contained page."""

from edgekd.records import Report


def render_html(report: Report) -> str:
    """The page."""
    return "<!doctype html>" + report.task
