"""`edgekd deploy` and `edgekd measure`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from edgekd.cli.console import ConsoleProgress
from edgekd.cli.results import show

Board = Annotated[
    list[str],
    typer.Option(
        metavar="local|[USER@]HOST[:PORT]",
        help="`local` is this machine; else a host over SSH. Given several times: units of one kind, judged together.",
    ),
]
Profile = Annotated[
    str | None, typer.Option(help="Judge as this profile (name or path) in place of the run's.", show_default=False)
]
Runtime = Annotated[Literal["tflite", "onnx"] | None, typer.Option(help="Default: the profile's.", show_default=False)]
Threads = Annotated[int | None, typer.Option(min=1, help="Default: the profile's.", show_default=False)]
Plan = Annotated[
    Literal["quick", "standard", "mlperf", "sustained"],
    typer.Option(
        help="At least: quick 64 runs and 10 s; standard 662 runs and 60 s; mlperf 1,024 runs and 600 s; "
        "sustained 30 minutes, the last 5 judged."
    ),
]
MaxSeconds = Annotated[
    float | None,
    typer.Option(help="Stop measuring then, though a verdict is open. Default: the plan's.", show_default=False),
]
RateHz = Annotated[
    float | None,
    typer.Option(help="Inputs arrive at this rate, as from a camera. Default: back to back.", show_default=False),
]
Background = Annotated[
    Literal["none", "declared"],
    typer.Option(help="declared: other work on the board belongs there and is part of what is judged."),
]
PinClocks = Annotated[
    bool, typer.Option("--pin-clocks", help="Set governor and affinity while measuring, and put them back after.")
]
Power = Annotated[
    str,
    typer.Option(
        metavar="METER",
        help="auto, none, ina3221, ina238, hwmon[:CHIP], tegrastats, pmic_read_adc, rapl, external:COMMAND or "
        "replay:FILE (lines of `seconds,watts`). A meter adds two minutes.",
    ),
]
Energy = Annotated[
    Literal["gross", "net"], typer.Option(help="Judge energy gross, or net of the idle baseline. Both are shown.")
]
Identity = Annotated[Path | None, typer.Option(help="Private key file for SSH.", show_default=False)]
AcceptKey = Annotated[
    bool, typer.Option("--accept-new-host-key", help="Add an unknown host's key to known_hosts. Never a changed one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def deploy_command(
    run: Annotated[Path, typer.Argument(help="A run directory of `edgekd fit`; runs/latest is the newest.")],
    board: Board,
    profile: Profile = None,
    runtime: Runtime = None,
    threads: Threads = None,
    plan: Plan = "standard",
    max_seconds: MaxSeconds = None,
    rate_hz: RateHz = None,
    background: Background = "none",
    pin_clocks: PinClocks = False,
    power: Power = "auto",
    energy: Energy = "gross",
    identity: Identity = None,
    accept_new_host_key: AcceptKey = False,
    as_json: AsJson = False,
) -> None:
    """Put a run's student on a board, measure it there and judge the budget.

    The board needs Python 3.9 or later and an SSH server; no internet, no pip. Exit code: 0 every constraint met,
    1 one missed, 6 undecided or not measured (a board of another kind than the profile's), 4 the board failed.

    Examples:
        edgekd deploy runs/latest --board pi@raspberrypi.local

        edgekd deploy runs/latest --board local --profile host --plan quick

        edgekd deploy runs/latest --board nano@orin --rate-hz 30 --power ina3221 --pin-clocks
    """
    from edgekd.pipeline.deploy import BoardOptions, deploy
    from edgekd.pipeline.measuring import MeasuringOptions

    measuring = MeasuringOptions(max_seconds, rate_hz, background, pin_clocks, power, energy)
    first, *more = board
    options = BoardOptions(
        first, runtime, threads, plan, identity, accept_new_host_key, measuring=measuring, more_boards=tuple(more)
    )
    with ConsoleProgress() as progress:
        deployed = deploy(run, options, profile, command=shlex.join(["edgekd", *sys.argv[1:]]), progress=progress)
    show(deployed.report, deployed.run.path, as_json)


def measure_command(
    model: Annotated[Path, typer.Argument(help="Any .tflite or .onnx file.")],
    board: Board,
    profile: Profile = None,
    runtime: Runtime = None,
    threads: Threads = None,
    plan: Plan = "standard",
    max_seconds: MaxSeconds = None,
    rate_hz: RateHz = None,
    background: Background = "none",
    pin_clocks: PinClocks = False,
    power: Power = "auto",
    energy: Energy = "gross",
    identity: Identity = None,
    accept_new_host_key: AcceptKey = False,
    inputs: Annotated[
        Path | None,
        typer.Option(help=".npz with float32 `inputs` (N, C, H, W) and optional `labels`. Default: random inputs."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure any model file on a board: latency, memory, and accuracy where labelled inputs are given.

    With --profile its default budget is judged too; without, nothing is, and the exit code is 0.

    Examples:
        edgekd measure model.tflite --board pi@raspberrypi.local

        edgekd measure model.onnx --board local --threads 2 --plan quick --json
    """
    from edgekd.pipeline.deploy import BoardOptions, measure_file
    from edgekd.pipeline.measuring import MeasuringOptions

    measuring = MeasuringOptions(max_seconds, rate_hz, background, pin_clocks, power, energy)
    first, *more = board
    options = BoardOptions(
        first, runtime, threads, plan, identity, accept_new_host_key, measuring=measuring, more_boards=tuple(more)
    )
    with ConsoleProgress() as progress:
        measured = measure_file(model, options, profile, inputs, progress=progress)
    if as_json:
        typer.echo(measured.model_dump_json(indent=2))
    else:
        from edgekd.report import print_measurement

        print_measurement(measured.measurement, measured.verdicts, Console())
    raise typer.Exit(measured.exit_code)
