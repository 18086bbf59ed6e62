"""`edgekd audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from edgekd.errors import EXIT_MET, BuildError

if TYPE_CHECKING:
    from edgekd.pipeline.files.audit import AuditedFile
    from edgekd.records import Accelerated

RuntimeChoice = Literal["all", "tflite", "onnxruntime", "tensorrt", "none"]
SchemeName = Literal["wi8_ai8", "wi8_ai8_mixed", "wi8_ai8_symmetric", "wi8_ai16", "wi8", "fp16", "fp32"]
_KERNELS = {"tflite": "XNNPACK in LiteRT", "onnxruntime": "onnxruntime", "tensorrt": "TensorRT"}
_SOURCES = {
    "flag": "--scheme",
    "report": "the report beside it",
    "metadata": "its own metadata",
    "name": "its name",
}


def audit_command(
    file: Annotated[Path, typer.Argument(help="Any .tflite or .onnx file, whoever made it.")],
    scheme: Annotated[
        SchemeName | None,
        typer.Option(
            help="What the file is said to be. Default: what the report beside it, its metadata or its name "
            "(model_int8.tflite) says, of two that differ the one that is not true; else what most of its "
            "operators are."
        ),
    ] = None,
    runtime: Annotated[
        RuntimeChoice,
        typer.Option(
            help="Whose acceleration to look at: tflite is LiteRT with XNNPACK, onnxruntime its CPU provider, tensorrt "
            "goes by its rules; all takes those that run the file's format."
        ),
    ] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Is a model file what it claims? Names every node that is not, and what a runtime will not accelerate.

    LiteRT and onnxruntime are asked: they load the file on this machine, in a process of their own; no inference is
    run. Slow is no lie: what is not accelerated is a warning and does not change the exit code.

    Exit code: 0 it is, 5 the name lies, 3 there is no such file or it cannot be read.

    Examples:
        edgekd audit model_int8.tflite

        edgekd audit model.onnx --runtime tensorrt

        edgekd audit model.onnx --scheme wi8_ai8 --json | jq '.findings[] | {node, problem}'
    """
    from edgekd.pipeline.files.audit import audit

    found = audit(file, scheme, runtime)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _show(found, Console(highlight=False))
    raise typer.Exit(EXIT_MET if found.verdict == "honest" else BuildError.exit_code)


def _show(found: AuditedFile, console: Console) -> None:
    colour = "green" if found.verdict == "honest" else "bold red"
    said_by = _SOURCES.get(found.scheme_source)
    claim = f"{'is' if found.verdict == 'honest' else 'is not'} {found.scheme} (as {said_by} says)"
    if found.scheme_source == "operators":
        claim = f"says no scheme that edgekd knows; most of its operators are {found.scheme}"
    console.print(f"[{colour}]{found.verdict}[/]: {escape(found.file)} {claim}", soft_wrap=True)
    console.print(f"its operators amount to: {found.found_scheme}", soft_wrap=True)
    console.print(
        f"{found.parameters} parameters, {found.weight_bytes} bytes of weights, a file of {found.size_bytes} bytes"
    )
    for finding in found.findings:
        mark = "[red]error[/red]" if finding.severity == "error" else "[yellow]warning[/yellow]"
        console.print(f"  {mark} {escape(finding.node)}: {escape(finding.problem)}", soft_wrap=True)
    if not found.findings:
        counts = ", ".join(f"{count} {name}" for name, count in found.operators.items())
        console.print(f"operators: {counts}", soft_wrap=True)
    for speed in found.accelerated:
        _show_acceleration(speed, console)


def _show_acceleration(speed: Accelerated, console: Console) -> None:
    name = f"{_KERNELS[speed.runtime]} {speed.version}" if speed.version else f"{_KERNELS[speed.runtime]}, by its rules"
    if not speed.findings:
        console.print(f"{name}: accelerates all {speed.operators} operators", soft_wrap=True)
    alike: dict[str, list[str]] = {}
    for finding in speed.findings:
        alike.setdefault(finding.problem, []).append(finding.node)
    for problem, nodes in alike.items():
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        console.print(f"  [yellow]slow[/yellow] {name}: {escape(nodes[0])}{more}: {escape(problem)}", soft_wrap=True)
