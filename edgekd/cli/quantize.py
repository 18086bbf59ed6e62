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
from edgekd.cli.quantize_options import AllowFloatOps, FloatIo, Mixed, Opset, QatWanted, Steps
from edgekd.errors import ConfigurationError

if TYPE_CHECKING:
    from edgekd.pipeline.quantization.pruning_result import PruningReport
    from edgekd.pipeline.quantization.result import Quantized

SHOWN_LAYERS = 5


def quantize_command(
    model: Annotated[str, typer.Argument(metavar="MODEL.py:factory", help="A function that returns a torch module.")],
    calib: Annotated[
        str,
        typer.Option(
            help="Inputs: a task (watch-gestures, fashion-mnist, your FILE.py), or a folder of .npy (inputs) or .npz "
            "(inputs, and labels where known). The module takes such inputs and gives logits (N, classes)."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the files, quantize.json and layers.svg; it must be empty or new.")
    ],
    weights: Annotated[
        Path | None, typer.Option(help="A torch state dict. Without it the factory gives the module trained.")
    ] = None,
    scheme: Annotated[SchemeName, typer.Option(help="How weights and activations are stored.")] = "wi8_ai8",
    qat: Annotated[
        QatWanted, typer.Option(help="Train with rounding: auto only where calibration alone loses too much.")
    ] = "auto",
    observer: Annotated[
        Literal["auto", "ema", "min-max", "percentile", "mse", "entropy"],
        typer.Option(
            help="How ranges are read off; auto tries them all, then equalization and bias correction, and keeps "
            "what brings held-back outputs closest to the float module's."
        ),
    ] = "auto",
    steps: Steps = "observed",
    accuracy_drop_max: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Most accuracy lost to fp32, a fraction; judged if given. QAT starts beyond it, or 0.005.",
        ),
    ] = None,
    prune: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="First take out channels until this share of the parameters is gone, and train what is left to answer "
            "as the module did. Refused where the file or the latency would not fall. Needs edgekd\\[prune].",
        ),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="With --prune: the latency predicted on this device must fall too.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of QAT (default: 6), and of training after pruning (10).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of QAT.")] = 0,
    mixed: Mixed = False,
    allow_float_ops: AllowFloatOps = False,
    float_io: FloatIo = False,
    opset: Opset = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print quantize.json on stdout.")] = False,
) -> None:
    """Quantize your own torch module to .tflite and .onnx, and say what it cost.

    The module classifies: from one input to one output, logits (N, classes). How far the files agree is printed here;
    the ladder of all forms, layer by layer, is `edgekd parity RUN` of a run of `edgekd fit`.

    Exit code: 0 done, 5 an operator has no int8 form or the files disagree; with --accuracy-drop-max also 1 missed and
    6 too few inputs to tell.

    Examples:
        edgekd quantize net.py:make --weights net.pt --calib fashion-mnist --out quantized

        edgekd quantize net.py:make --calib my_inputs/ --scheme wi8_ai16 --out wide --json

        edgekd quantize net.py:make --weights net.pt --calib fashion-mnist --accuracy-drop-max 0.01 --mixed --out mixed
    """
    # Threads that wait busily starve each other where cores are shared. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from edgekd.pipeline.settings import require_fit_extra

    require_fit_extra()
    from edgekd.pipeline.quantization.pruning import PruneOptions
    from edgekd.pipeline.quantization.quantize import QuantizeOptions, quantize

    if profile is not None and prune is None:
        raise ConfigurationError("--profile says where pruning must pay: give it with --prune")
    options = QuantizeOptions(
        *(scheme, qat, observer, accuracy_drop_max, epochs, seed),
        steps=steps,
        mixed=mixed,
        allow_float_ops=allow_float_ops,
        float_io=float_io,
        opset=opset,
        prune=None if prune is None else PruneOptions(prune, profile, epochs),
    )
    with ConsoleProgress() as progress:
        found = quantize(model, weights, calib, out, options, progress)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _show(found, Console(highlight=False))
    raise typer.Exit(found.exit_code)


def _show(found: Quantized, console: Console) -> None:
    if found.pruning is not None:
        _show_pruning(found.pruning, console)
    console.print(f"[bold]{escape(found.model)}[/bold] as {found.scheme}, {found.metric}:", soft_wrap=True)
    table = Table("", "Test", "Validation", "Seconds", "", box=None, pad_edge=False)
    chosen = "mixed" if found.mixed is not None else found.chosen
    for name, step in (("fp32", found.fp32), ("PTQ", found.ptq), ("QAT", found.qat), ("mixed", found.mixed)):
        if step is not None:
            kept = "kept" if name.lower() == chosen else ""
            table.add_row(name, f"{step.accuracy:.4f}", f"{step.validation_accuracy:.4f}", f"{step.seconds:.1f}", kept)
    console.print(table)
    console.print(f"QAT {found.qat_reason}", soft_wrap=True)
    _show_float(found, console)
    console.print(f"the file itself: {found.file_accuracy:.4f}")
    for rung in found.parity:
        console.print(
            f"{rung.pair}: {rung.top1_agreement:.2%} same class, {rung.identical_logits:.2%} same logits, at most "
            f"{rung.max_abs_lsb} LSB",
            soft_wrap=True,
        )
    for distance in found.distances:
        console.print(
            f"{distance.path} and {distance.against}: {distance.top1_agreement:.2%} same class, outputs at most "
            f"{distance.share_of_range:.2g} of their range apart",
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
        if found.verdict.outcome == "missed" and found.scheme == "wi8_ai8" and found.mixed_report is None:
            console.print("--mixed keeps the layers that rounding hurts most in float")
    for artifact in found.artifacts:
        console.print(f"{escape(found.out)}/{artifact.path}: {artifact.size_bytes} bytes", soft_wrap=True)


def _show_float(found: Quantized, console: Console) -> None:
    """What is in float: because it has no int8 form, or for accuracy."""
    if found.float_operators:
        console.print(f"in float, without an int8 form: {escape(', '.join(found.float_operators))}", soft_wrap=True)
    if found.mixed_report is None:
        return
    console.print(f"mixed precision {escape(found.mixed_report.reason)}", soft_wrap=True)
    for entry in found.mixed_report.kept:
        console.print(
            f"in float: {escape(', '.join(entry.layers))}: validation {entry.validation_accuracy_before:.4f} to "
            f"{entry.validation_accuracy:.4f}, divergence {entry.divergence_before_nats:.2g} to "
            f"{entry.divergence_nats:.2g} nats, {entry.more_bytes:+} bytes",
            soft_wrap=True,
        )


def _show_pruning(found: PruningReport, console: Console) -> None:
    worth, ratio = found.worth, found.worth.latency_ratio
    console.print(
        f"pruned: {found.parameters} of {found.parameters_before} parameters are left, the file has {worth.file_bytes} "
        f"of {worth.file_bytes_before} bytes",
        soft_wrap=True,
    )
    console.print(
        f"latency on this machine: {ratio.value:.1%} of the whole module's (95 % interval {ratio.low:.1%} to "
        f"{ratio.high:.1%})",
        soft_wrap=True,
    )
    if worth.predicted_ms is not None:
        console.print(
            f"predicted on {worth.profile}: {worth.predicted_ms:.3g} ms, {worth.predicted_ms_before:.3g} before"
        )
    console.print(
        f"validation: {found.accuracy_before:.4f} before, {found.accuracy_cut:.4f} cut, {found.accuracy:.4f} after "
        f"{found.epochs} epochs",
        soft_wrap=True,
    )
