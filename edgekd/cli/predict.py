"""`edgekd predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekd.records import Prediction

SHOWN_OPERATORS = 12


def predict_command(
    model: Annotated[Path, typer.Argument(help="Any .tflite or .onnx file.")],
    profile: Annotated[str, typer.Option(help="The board: a name from `edgekd profile list`, or a profile's path.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Predict what a model file costs on a board, and which operators take the time. Nothing is run.

    Examples:
        edgekd predict model.tflite --profile rpi4

        edgekd predict model.onnx --profile rpi4-calibrated.toml --json
    """
    from edgekd.pipeline.files.predict import predict_file

    prediction = predict_file(model, profile)
    if as_json:
        typer.echo(prediction.model_dump_json(indent=2))
        return
    _print(prediction, Console(highlight=False))


def _print(prediction: Prediction, console: Console) -> None:
    threads = f"{prediction.threads} thread{'s' if prediction.threads != 1 else ''}"
    console.print(
        f"[bold]{escape(prediction.model)}[/bold] on {prediction.profile} "
        f"({prediction.runtime}, {prediction.scheme}, {threads}), predicted",
        soft_wrap=True,
    )
    costs = Table(box=None, pad_edge=False, show_header=False)
    if prediction.latency_ms is not None and prediction.interval_ms is not None and prediction.confidence is not None:
        low, high = prediction.interval_ms
        sure = f"{100 * prediction.confidence:.0f} % interval {low:.4g} to {high:.4g}"
        costs.add_row("median latency", f"{prediction.latency_ms:.4g} ms", f"{sure}, {prediction.provenance}")
    else:
        costs.add_row("median latency", "unknown", "")
    if prediction.energy_mj is not None and prediction.energy_interval_mj is not None:
        low, high = prediction.energy_interval_mj
        costs.add_row("energy", f"{prediction.energy_mj:.4g} mJ", f"90 % interval {low:.4g} to {high:.4g}, gross")
    else:
        costs.add_row("energy", "not measured", "")
    low, high = prediction.peak_memory_interval_mib
    costs.add_row("peak memory", f"{prediction.peak_memory_mib:.3g} MiB", f"90 % interval {low:.3g} to {high:.3g}")
    costs.add_row("file size", f"{prediction.file_size_kib:.4g} KiB", "the file's own")
    costs.add_row("work", f"{prediction.macs / 1e6:.4g} MMACs", f"{prediction.parameters} parameters")
    console.print(costs)
    if prediction.latency_ms is not None:
        console.print(_operators(prediction))
    for note in prediction.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)


def _operators(prediction: Prediction) -> Table:
    table = Table("Operator", "Kind", "MMACs", "Share", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    by_share = sorted(prediction.per_operator, key=lambda operator: -(operator.share or 0))
    for operator in by_share[:SHOWN_OPERATORS]:
        share = f"{100 * (operator.share or 0):.1f} %"
        table.add_row(escape(operator.name), operator.kind, f"{operator.macs / 1e6:.4g}", share)
    rest = by_share[SHOWN_OPERATORS:]
    if rest:
        share = f"{100 * sum(operator.share or 0 for operator in rest):.1f} %"
        table.add_row(f"{len(rest)} more", "", f"{sum(operator.macs for operator in rest) / 1e6:.4g}", share)
    if prediction.overhead_ms is not None:
        table.add_row("(beside them, each inference)", "", "", f"{prediction.overhead_ms:.3g} ms")
    return table
