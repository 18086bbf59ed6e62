"""Prints a report and ends with its exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

from edgekd.errors import EXIT_MET, EXIT_MISSED
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


def show_all(fitted: Sequence[tuple[Report, Path]], as_json: bool) -> None:
    """Print the reports of several profiles, one after another or as a JSON list, and exit with the worst code.

    Raises:
        typer.Exit: always; a missed constraint is worse than an undecided one.
    """
    if as_json:
        typer.echo(json.dumps([report.model_dump(mode="json") for report, _ in fitted], indent=2))
    else:
        from edgekd.report import print_report

        console = Console()
        for report, run in fitted:
            print_report(report, console)
            console.print(f"\nRun directory: {run}\n", soft_wrap=True, highlight=False, markup=False)
    codes = {report.exit_code for report, _ in fitted}
    raise typer.Exit(EXIT_MISSED if EXIT_MISSED in codes else max(codes, default=EXIT_MET))
