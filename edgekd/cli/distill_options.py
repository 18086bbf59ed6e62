"""Options that `edgekd fit` and `edgekd distill` have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgekd.records.regimes import REGIMES

_PANEL = "Teaching"

TaskName = Annotated[str | None, typer.Option(help="watch-gestures, fashion-mnist, or your own FILE.py.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything random. Default: the recipe's, 0.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
ObjectiveKind = Annotated[
    str | None,
    typer.Option(
        metavar="KIND|auto",
        help="One kind of `edgekd objectives`, beside the labels; `hard` is labels alone, `auto` chooses by short "
        "runs on the validation split.",
        rich_help_panel=_PANEL,
    ),
]
RegimeName = Annotated[
    str | None, typer.Option(metavar="REGIME", help=f"Who teaches whom: {', '.join(REGIMES)}.", rich_help_panel=_PANEL)
]
Labels = Annotated[
    int | None,
    typer.Option(min=1, help="Keep only so many labels; the rest of the split is unlabelled.", rich_help_panel=_PANEL),
]
TeacherFile = Annotated[
    Path | None,
    typer.Option(
        help="Bring a teacher: .onnx, .pt2 (torch.export), or .pt weights of the task's own.", rich_help_panel=_PANEL
    ),
]
TuneMinutes = Annotated[
    float | None,
    typer.Option(
        help="Search objective, weight, temperature and learning rate by short runs for so long.",
        rich_help_panel=_PANEL,
    ),
]
TuneSearchName = Annotated[
    Literal["bayes", "random", "grid"] | None,
    typer.Option(help="How to search. Default: the recipe's, bayes.", rich_help_panel=_PANEL),
]
Seeds = Annotated[
    int | None,
    typer.Option(min=1, help="Seeds of the students of --ablation full. Default: 3.", rich_help_panel=_PANEL),
]
