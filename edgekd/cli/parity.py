"""`edgekd parity`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekd.cli.console import ConsoleProgress
from edgekd.errors import EXIT_MET, BuildError

if TYPE_CHECKING:
    from edgekd.pipeline.files.parity import Ladder


def parity_command(
    run: Annotated[Path, typer.Argument(help="A run directory; runs/latest is the newest.")] = Path("runs/latest"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Do all forms of a run's student agree, from float torch over ONNX and TFLite to the board?

    Over the task's validation inputs. Exit code: 0 those that hold the same parameters agree, 5 they do not; the layer
    where they part is then named.

    Examples:
        edgekd parity

        edgekd parity runs/latest --json | jq '.rungs[] | {pair, top1_agreement, max_abs_lsb, first_divergent_layer}'
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from edgekd.pipeline.settings import require_fit_extra

    require_fit_extra()
    from edgekd.pipeline.files.parity import parity

    with ConsoleProgress() as progress:
        ladder = parity(run, progress)
    if as_json:
        typer.echo(ladder.model_dump_json(indent=2))
    else:
        _show(ladder, Console(highlight=False))
    raise typer.Exit(EXIT_MET if ladder.verdict == "agree" else BuildError.exit_code)


def _show(ladder: Ladder, console: Console) -> None:
    colour = "green" if ladder.verdict == "agree" else "bold red"
    console.print(f"[{colour}]{ladder.verdict}[/]: {escape(ladder.run)}, {ladder.inputs} inputs", soft_wrap=True)
    table = Table("Pair", "Inputs", "Same class", "Same logits", "Most LSB", "Bound", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for rung in ladder.rungs:
        agreement = "" if rung.top1_agreement is None else f"{rung.top1_agreement:.2%}"
        furthest = "" if rung.max_abs_lsb is None else str(rung.max_abs_lsb)
        bound = "reported" if rung.bound is None else f"{rung.bound:.0%}"
        cells = (str(rung.inputs), agreement, f"{rung.identical_logits:.2%}", furthest, bound)
        table.add_row(escape(rung.pair), *cells, style=None if rung.holds else "red")
    console.print(table)
    console.print("accuracy: " + ", ".join(f"{form} {share:.4f}" for form, share in ladder.accuracy.items()))
    for rung in ladder.rungs:
        if rung.first_divergent_layer is not None:
            console.print(f"{escape(rung.pair)} part at {escape(rung.first_divergent_layer)}", soft_wrap=True)
    for note in ladder.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)
