"""`edgekd quantize`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekd.cli.audit import SchemeName
from edgekd.cli.console import ConsoleProgress

if TYPE_CHECKING:
    from edgekd.pipeline.quantize_result import Quantized

SHOWN_LAYERS = 5


def quantize_command(
    model: Annotated[str, typer.Argument(metavar="MODEL.py:factory", help="A function that returns a torch module.")],
    calib: Annotated[
        str,
        typer.Option(
            help="Inputs: a task (watch-gestures, fashion-mnist, your FILE.py), or a folder of .npy (inputs) or .npz "
            "(inputs, and labels where known)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the files and quantize.json; it must be empty or new.")],
    weights: Annotated[
        Path | None, typer.Option(help="A torch state dict. Without it the factory gives the module trained.")
    ] = None,
    scheme: Annotated[SchemeName, typer.Option(help="How weights and activations are stored.")] = "wi8_ai8",
    qat: Annotated[
        Literal["auto", "always", "never"],
        typer.Option(help="Train with rounding: auto only where calibration alone loses too much."),
    ] = "auto",
    observer: Annotated[
        Literal["auto", "ema", "min-max", "percentile", "mse", "entropy"],
        typer.Option(
            help="How ranges are read off; auto tries them all, then equalization and bias correction, and keeps "
            "what brings held-back outputs closest to the float module's."
        ),
    ] = "auto",
    steps: Annotated[
        Literal["observed", "learned"],
        typer.Option(help="QAT's ranges follow what is seen, or are trained with the weights (LSQ+)."),
    ] = "observed",
    accuracy_drop_max: Annotated[
        float | None,
        typer.Option(help="Most accuracy lost to fp32, a fraction; judged if given. QAT starts beyond it, or 0.005."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of QAT. Default: 6.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of QAT.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print quantize.json on stdout.")] = False,
) -> None:
    """Quantize your own torch module to .tflite and .onnx, and say what it cost.

    Exit code: 0 done, 5 an operator has no int8 form or the files disagree; with --accuracy-drop-max also 1 missed and
    6 too few inputs to tell.

    Examples:
        edgekd quantize net.py:make --weights net.pt --calib fashion-mnist --out quantized

        edgekd quantize net.py:make --calib my_inputs/ --scheme wi8_ai16 --out wide --json
    """
    # Threads that wait busily starve each other where cores are shared. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from edgekd.pipeline.settings import require_fit_extra

    require_fit_extra()
    from edgekd.pipeline.quantize import QuantizeOptions, quantize

    options = QuantizeOptions(scheme, qat, observer, accuracy_drop_max, epochs, seed, steps=steps)
    with ConsoleProgress() as progress:
        found = quantize(model, weights, calib, out, options, progress)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _show(found, Console(highlight=False))
    raise typer.Exit(found.exit_code)


def _show(found: Quantized, console: Console) -> None:
    console.print(f"[bold]{escape(found.model)}[/bold] as {found.scheme}, {found.metric}:", soft_wrap=True)
    table = Table("", "Test", "Validation", "Seconds", "", box=None, pad_edge=False)
    for name, step in (("fp32", found.fp32), ("PTQ", found.ptq), ("QAT", found.qat)):
        if step is not None:
            kept = "kept" if name.lower() == found.chosen else ""
            table.add_row(name, f"{step.accuracy:.4f}", f"{step.validation_accuracy:.4f}", f"{step.seconds:.1f}", kept)
    console.print(table)
    console.print(f"QAT {found.qat_reason}", soft_wrap=True)
    console.print(f"the file itself: {found.file_accuracy:.4f}")
    for rung in found.parity:
        console.print(
            f"{rung.pair}: {rung.top1_agreement:.2%} same class, {rung.identical_logits:.2%} same logits, at most "
            f"{rung.max_abs_lsb} LSB",
            soft_wrap=True,
        )
    for layer in found.layers[:SHOWN_LAYERS]:
        noise = "no noise" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f} dB behind it"
        console.print(
            f"rounding alone costs {layer.damage_nats:.2g} nats at {escape(layer.layer)} ({layer.kind}, "
            f"{layer.low:.3g} to {layer.high:.3g}): {noise}, {layer.saturated:.1%} saturated",
            soft_wrap=True,
        )
    if found.verdict is not None:
        console.print(f"accuracy drop: {found.verdict.outcome}, {escape(found.verdict.reason)}", soft_wrap=True)
    for artifact in found.artifacts:
        console.print(f"{escape(found.out)}/{artifact.path}: {artifact.size_bytes} bytes", soft_wrap=True)
