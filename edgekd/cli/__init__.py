"""The command line: parse, call the pipeline, print, exit. Heavy imports happen inside the commands that need them."""

from __future__ import annotations

from typing import Annotated

import typer

import edgekd
from edgekd.cli import (
    audit,
    board,
    calibrate,
    deploy,
    distill,
    fit,
    objectives,
    parity,
    predict,
    profile,
    quantize,
    report,
    schema,
)
from edgekd.cli.console import set_up_logging
from edgekd.cli.errors import ExitCodeGroup

app = typer.Typer(
    name="edgekd",
    cls=ExitCodeGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Tell edgekd the board and the budget; it gives back the most accurate student that meets it, "
        "with the evidence.\n\n"
        "Example: edgekd fit --profile rpi4 --latency-p90-ms 5\n\n"
        "Then: edgekd deploy runs/latest --board pi@raspberrypi.local"
    ),
)
app.command("fit")(fit.fit_command)
app.command("deploy")(deploy.deploy_command)
app.command("measure")(deploy.measure_command)
app.command("calibrate")(calibrate.calibrate_command)
app.command("predict")(predict.predict_command)
app.command("report")(report.report_command)
app.command("distill")(distill.distill_command)
app.command("objectives")(objectives.objectives_command)
app.command("audit")(audit.audit_command)
app.command("parity")(parity.parity_command)
app.command("quantize")(quantize.quantize_command)
app.command("schema")(schema.schema_command)
app.add_typer(profile.app, name="profile")
app.add_typer(board.app, name="board")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgekd {edgekd.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what edgekd does, to stderr.")] = False,
) -> None:
    set_up_logging(verbose)


def main() -> None:
    """The console script."""
    app()
