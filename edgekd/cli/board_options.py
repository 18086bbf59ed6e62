"""The options that `deploy` and `measure` share: what board, and how to measure there."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from edgekd.pipeline.boards.measuring import BoardOptions

Identity = Annotated[Path | None, typer.Option(help="Private key file for SSH.", show_default=False)]
AcceptKey = Annotated[
    bool, typer.Option("--accept-new-host-key", help="Add an unknown host's key to known_hosts. Never a changed one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Board = Annotated[
    list[str],
    typer.Option(
        metavar="local|[USER@]HOST[:PORT]",
        help="`local` is this machine; else a host over SSH. Given several times: units of one kind, judged together.",
    ),
]
Runtime = Annotated[
    Literal["tflite", "onnx", "tensorrt"] | None,
    typer.Option(help="Default: the profile's, or the file's. tensorrt: the board's own trtexec.", show_default=False),
]
Scheme = Annotated[
    Literal["fp16", "fp32", "wi8_ai8_symmetric"] | None,
    typer.Option(help="For --runtime tensorrt: what the ONNX file is, or which to deploy. Default: fp16."),
]
Provider = Annotated[
    str | None,
    typer.Option(
        metavar="PROVIDER",
        help="For onnxruntime: what has to run the whole graph, such as CUDAExecutionProvider; an error if another "
        "does. Default: CPUExecutionProvider.",
        show_default=False,
    ),
]
Container = Annotated[
    str | None,
    typer.Option(
        metavar="IMAGE",
        help="Run in a container of this image, by the board's own docker or podman. It needs Python 3.9 or later.",
        show_default=False,
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Default: the profile's, else 1.", show_default=False)]
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


def _board_options(
    board: Board,
    runtime: Runtime = None,
    scheme: Scheme = None,
    provider: Provider = None,
    container: Container = None,
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
) -> BoardOptions:
    from edgekd.pipeline.boards.measuring import BoardOptions, MeasuringOptions

    first, *more = board
    return BoardOptions(
        board=first,
        runtime=runtime,
        threads=threads,
        plan=plan,
        identity=identity,
        accept_new_host_key=accept_new_host_key,
        measuring=MeasuringOptions(max_seconds, rate_hz, background, pin_clocks, power, energy, provider, container),
        more_boards=tuple(more),
        scheme=scheme,
    )


def takes_board_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of `_board_options`, which it gets as one argument `options`."""
    shared = inspect.signature(_board_options).parameters
    hints, declared = _hints(command), _hints(_board_options)
    own = [one for one in inspect.signature(command).parameters.values() if one.name != "options"]
    parameters = [
        *(one.replace(annotation=hints[one.name]) for one in own if one.default is inspect.Parameter.empty),
        *(one.replace(annotation=declared[one.name]) for one in shared.values()),
        *(one.replace(annotation=hints[one.name]) for one in own if one.default is not inspect.Parameter.empty),
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        options = _board_options(**{name: given.pop(name) for name in shared})
        command(options=options, **given)

    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    del run.__wrapped__
    return run


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """A function's annotations. `BoardOptions` stands for anything here: its module must not load with the help."""
    return typing.get_type_hints(function, {**function.__globals__, "BoardOptions": Any}, include_extras=True)
