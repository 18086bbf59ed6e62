"""Options that `edgekd fit` and `edgekd quantize` have in common; each says what holds where one is not given."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

_PANEL = "Rounding"

QatWanted = Literal["auto", "always", "never"]
StepsName = Literal["observed", "learned"]
STEPS_HELP = "QAT's ranges follow what is seen, or are trained with the weights (LSQ+)."
Steps = Annotated[StepsName, typer.Option(help=STEPS_HELP, rich_help_panel=_PANEL)]
RecipeSteps = Annotated[
    StepsName | None, typer.Option(help=f"{STEPS_HELP} Default: the recipe's, observed.", rich_help_panel=_PANEL)
]
Mixed = Annotated[
    bool,
    typer.Option(
        "--mixed",
        help="Where calibration and training still lose more than --accuracy-drop-max (or, without one, 0.5 points), "
        "keep the worst layers in float, as few as it takes; the files are then wi8_ai8_mixed and name them.",
        rich_help_panel=_PANEL,
    ),
]
AllowFloatOps = Annotated[
    bool,
    typer.Option(
        "--allow-float-ops",
        help="Keep operators without an int8 form in float (layer norm, attention, GELU, …) instead of refusing "
        "them; the files are then wi8_ai8_mixed.",
        rich_help_panel=_PANEL,
    ),
]
FloatIo = Annotated[
    bool,
    typer.Option(
        "--float-io",
        help="Let the .tflite file take and give float32 and quantize inside, as the .onnx file always does; without "
        "it the .tflite file takes and gives integers.",
        rich_help_panel=_PANEL,
    ),
]
Opset = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Opset of the .onnx files. Default: 17, or 21 where activations have 16 bits.",
        rich_help_panel=_PANEL,
    ),
]
