"""`edgekd deploy` and `edgekd measure`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from edgekd.cli.board_options import AsJson, takes_board_options
from edgekd.cli.console import ConsoleProgress
from edgekd.cli.results import show

if TYPE_CHECKING:
    from edgekd.pipeline.boards.measuring import BoardOptions

Profile = Annotated[
    str | None, typer.Option(help="Judge as this profile (name or path) in place of the run's.", show_default=False)
]


@takes_board_options
def deploy_command(
    run: Annotated[Path, typer.Argument(help="A run directory of `edgekd fit`; runs/latest is the newest.")],
    options: BoardOptions,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Put a run's student on a board, measure it there and judge the budget.

    The board needs Python 3.9 or later and an SSH server; no internet, no pip. Exit code: 0 every constraint met,
    1 one missed, 6 undecided or not measured (a board of another kind than the profile's), 4 the board failed.

    Examples:
        edgekd deploy runs/latest --board pi@raspberrypi.local

        edgekd deploy runs/latest --board local --profile host --plan quick

        edgekd deploy runs/latest --board nano@orin --runtime tensorrt --pin-clocks
    """
    from edgekd.pipeline.boards.deploy import deploy

    with ConsoleProgress() as progress:
        deployed = deploy(run, options, profile, command=shlex.join(["edgekd", *sys.argv[1:]]), progress=progress)
    show(deployed.report, deployed.run.path, as_json)


@takes_board_options
def measure_command(
    model: Annotated[Path, typer.Argument(help="Any .tflite or .onnx file.")],
    options: BoardOptions,
    profile: Profile = None,
    inputs: Annotated[
        Path | None,
        typer.Option(help=".npz with float32 `inputs` (N, C, H, W) and optional `labels`. Default: random inputs."),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="OTHER",
            help="Another model file, or a run: time the two in turn, a fresh process each, and tell which is faster.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure any model file on a board: latency, memory, and accuracy where labelled inputs are given.

    With --profile its default budget is judged too; without, nothing is, and the exit code is 0. With --compare only
    latency is measured, of both: exit code 0 where it is decided which is faster, else 6.

    Examples:
        edgekd measure model.tflite --board pi@raspberrypi.local

        edgekd measure model.onnx --board local --threads 2 --plan quick --json

        edgekd measure runs/latest/student.tflite --compare runs/latest/student_fp32.tflite --board pi@raspberrypi.local
    """
    if compare is not None:
        _compare(model, compare, options, profile, inputs, as_json)
    from edgekd.pipeline.boards.deploy import measure_file

    with ConsoleProgress() as progress:
        measured = measure_file(model, options, profile, inputs, progress=progress)
    if as_json:
        typer.echo(measured.model_dump_json(indent=2))
    else:
        from edgekd.report import print_measurement

        print_measurement(measured.measurement, measured.verdicts, Console())
    raise typer.Exit(measured.exit_code)


def _compare(
    first: Path, second: Path, options: BoardOptions, profile: str | None, inputs: Path | None, as_json: bool
) -> NoReturn:
    from edgekd.cli.comparison import print_comparison
    from edgekd.pipeline.boards.side_by_side import compare_files

    if profile is not None:
        raise typer.BadParameter("--compare judges no budget: leave --profile out", param_hint="--profile")
    with ConsoleProgress() as progress:
        found = compare_files(first, second, options, inputs, progress=progress)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_comparison(found, Console())
    raise typer.Exit(found.exit_code)
