"""Prints a report and ends with its exit code."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from edgekd.records.report import Report


def show(report: Report, run: Path, as_json: bool) -> None:
    """Print the report on stdout, as JSON or for people, and exit with its code.

    Raises:
        typer.Exit: always.
    """
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        from edgekd.report import print_report

        console = Console()
        print_report(report, console)
        console.print(f"\nRun directory: {run}", soft_wrap=True, highlight=False, markup=False)
    raise typer.Exit(report.exit_code)
