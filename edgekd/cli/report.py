"""`edgekd report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.results import show


def report_command(
    run: Annotated[Path, typer.Argument(help="A run directory; runs/latest is the newest.")] = Path("runs/latest"),
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json on stdout.")] = False,
) -> None:
    """Show a run's report again, and exit with its code.

    Examples:
        edgekd report

        edgekd report runs/latest --json | jq '.verdicts[] | {constraint, outcome}'
    """
    from edgekd.store import RunDirectory

    directory = RunDirectory.open(run)
    show(directory.read_report(), directory.path, as_json)
