"""`edgekd calibrate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekd.cli.console import ConsoleProgress
from edgekd.records import Calibration


def calibrate_command(
    profile: Annotated[str, typer.Option(help="The board's profile: a name from `edgekd profile list`, or a path.")],
    board: Annotated[
        str, typer.Option(metavar="local|[USER@]HOST[:PORT]", help="`local` is this machine; else a host over SSH.")
    ],
    minutes: Annotated[float, typer.Option(min=0.1, help="How long measuring may take.")] = 10.0,
    runtime: Annotated[
        Literal["tflite", "onnx"] | None, typer.Option(help="Default: the profile's.", show_default=False)
    ] = None,
    scheme: Annotated[
        Literal["wi8_ai8", "fp32"], typer.Option(help="Number types of the students; another scheme is another run.")
    ] = "wi8_ai8",
    power: Annotated[
        str,
        typer.Option(
            metavar="METER",
            help="Read energy too, as in `edgekd deploy --power`: auto, a meter, external:COMMAND or replay:FILE. "
            "Adds about four minutes.",
        ),
    ] = "none",
    background: Annotated[
        Literal["none", "declared"],
        typer.Option(help="Whether others' work on the board belongs there; if not, energy read beside it is dropped."),
    ] = "none",
    out: Annotated[
        Path | None, typer.Option(help="The new profile's file. Default: NAME-calibrated.toml here.")
    ] = None,
    students: Annotated[int, typer.Option(min=12, help="How many students to measure.")] = 45,
    seed: Annotated[int, typer.Option(min=0, help="Of the students' choices.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out where it is there.")] = False,
    identity: Annotated[Path | None, typer.Option(help="Private key file for SSH.", show_default=False)] = None,
    accept_new_host_key: Annotated[
        bool, typer.Option("--accept-new-host-key", help="Add an unknown host's key to known_hosts.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Measure students with random weights on a board, and give its profile a latency model of its own.

    Interrupted, the same command goes on. A third of the students takes no part in the fit: the printed errors and
    coverage are theirs.

    Examples:
        edgekd calibrate --profile rpi4 --board pi@raspberrypi.local

        edgekd calibrate --profile host --board local --minutes 3 --out my-machine.toml

        edgekd calibrate --profile my-machine.toml --board local --scheme fp32 --out my-machine.toml --overwrite

        edgekd calibrate --profile jetson-orin-nano --board nano@orin --power ina3221
    """
    from edgekd.pipeline.settings import require_fit_extra

    require_fit_extra()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from edgekd.pipeline.boards.calibrate import CalibrateOptions, calibrate
    from edgekd.pipeline.boards.timing import BoardAddress, EnergyReadings

    options = CalibrateOptions(
        profile,
        BoardAddress(board, identity, accept_new_host_key),
        minutes,
        runtime,
        out,
        students,
        seed,
        overwrite,
        scheme,
        EnergyReadings(power, background=background),
    )
    with ConsoleProgress() as progress:
        calibration = calibrate(options, progress)
    if as_json:
        typer.echo(calibration.model_dump_json(indent=2))
        return
    _print(calibration, Console(highlight=False))


def _print(calibration: Calibration, console: Console) -> None:
    model = calibration.latency_model
    table = Table("Measured ms", "Predicted ms", "Interval", "Error", "Held-out student", box=None, pad_edge=False)
    for column in table.columns[:4]:
        column.justify, column.no_wrap = "right", True
    for row in sorted(model.held_out, key=lambda row: row.measured_ms):
        table.add_row(
            f"{row.measured_ms:.4g}",
            f"{row.predicted_ms:.4g}",
            f"{row.low_ms:.3g} to {row.high_ms:.3g}{'' if row.covered else ' (missed)'}",
            f"{100 * (row.predicted_ms / row.measured_ms - 1):+.1f} %",
            escape(row.label),
        )
    console.print(table)
    console.print(
        f"\n{calibration.board}: {model.samples} students fitted "
        f"({calibration.excluded} left out: noisy, or no time for more rounds; "
        f"{calibration.remeasured} measured again, {calibration.throttled_rounds} throttled timings dropped)\n"
        f"held-out error {model.held_out_mape_percent:.1f} % (MAPE); the {100 * model.confidence:.0f} % interval held "
        f"{100 * (model.interval_coverage or 0):.0f} % of {len(model.held_out)} students",
        soft_wrap=True,
    )
    if model.tails:
        told = ", ".join(
            f"{name} {value:.3g} ({low:.3g} to {high:.3g})" for name, (value, low, high) in model.tails.items()
        )
        console.print(f"over the quiet median (in brackets nine of ten rounds): {told}", soft_wrap=True)
    energy = calibration.energy_model
    if energy is not None:
        console.print(
            f"energy, gross: {energy.watts:.3g} W while running, {energy.samples} students read by "
            f"{escape(energy.meter)} (grade {energy.grade}); each predicted from the others with error "
            f"{energy.held_out_mape_percent or 0:.1f} % (MAPE)",
            soft_wrap=True,
        )
    for note in calibration.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)
    console.print(
        f"\nNew profile: {calibration.out} (plot: {calibration.plot})\nUse it: edgekd fit --profile {calibration.out}",
        soft_wrap=True,
        markup=False,
    )
