"""`edgekd fit`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from edgekd.cli.console import ConsoleProgress
from edgekd.cli.distill_options import (
    AsJson,
    Labels,
    ObjectiveKind,
    RegimeName,
    Seed,
    Seeds,
    TaskName,
    TeacherFile,
    TuneMinutes,
    TuneSearchName,
)
from edgekd.cli.plans import frontier_json, print_plan
from edgekd.cli.quantize_options import AllowFloatOps, FloatIo, Mixed, Opset, QatWanted, RecipeSteps
from edgekd.cli.results import show, show_all
from edgekd.errors import ConfigurationError, InfeasibleBudgetError
from edgekd.records import FitPlan

if TYPE_CHECKING:
    from edgekd.pipeline.settings import Settings


def fit_command(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe (TOML). Without it and --task: edgekd.toml here.")
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(help="The board: a name from `edgekd profile list`, or a profile's path. Several: several runs."),
    ] = None,
    task: TaskName = None,
    out: Annotated[Path | None, typer.Option(help="Run directory. Default: runs/<utc>-<task>-<profile>/.")] = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out, or with the latest run.")] = False,
    ablation: Annotated[
        Literal["none", "scratch", "full"] | None,
        typer.Option(help="What to train beside the student, for comparison. Default: the recipe's, scratch."),
    ] = None,
    board: Annotated[
        str | None,
        typer.Option(
            metavar="local|[USER@]HOST[:PORT]", help="Time candidates there before training; drop those that miss."
        ),
    ] = None,
    search: Annotated[
        Literal["ladder", "halving"] | None,
        typer.Option(help="A few sizes in turn, or a search by short runs. Default: the recipe's, ladder."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.py:NAME",
            help="Students to choose from: ds-cnn, inverted-residual, or a `Space` of your own. Default: the task's.",
        ),
    ] = None,
    qat: Annotated[
        QatWanted | None,
        typer.Option(
            help="Train with rounding: auto only where calibration alone misses --accuracy-drop-max or, without one, "
            "loses 0.5 points. Default: the recipe's, auto.",
            rich_help_panel="Rounding",
        ),
    ] = None,
    steps: RecipeSteps = None,
    mixed: Mixed = False,
    allow_float_ops: AllowFloatOps = False,
    float_io: FloatIo = False,
    opset: Opset = None,
    objective: ObjectiveKind = None,
    regime: RegimeName = None,
    labels: Labels = None,
    teacher: TeacherFile = None,
    tune_minutes: TuneMinutes = None,
    tune_search: TuneSearchName = None,
    seeds: Seeds = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print candidates, costs and training time; train nothing.")
    ] = False,
    identity: Annotated[Path | None, typer.Option(help="Private key file for SSH.", show_default=False)] = None,
    accept_new_host_key: Annotated[
        bool, typer.Option("--accept-new-host-key", help="Add an unknown host's key to known_hosts.")
    ] = False,
    require_measured: Annotated[
        bool, typer.Option("--require-measured", help="Exit 6 where a verdict rests on a prediction.")
    ] = False,
    latency_p50_ms: Annotated[float | None, typer.Option(rich_help_panel="Budget", help="Median latency.")] = None,
    latency_p90_ms: Annotated[float | None, typer.Option(rich_help_panel="Budget", help="90th percentile.")] = None,
    latency_p95_ms: Annotated[float | None, typer.Option(rich_help_panel="Budget", help="95th percentile.")] = None,
    latency_p99_ms: Annotated[float | None, typer.Option(rich_help_panel="Budget", help="99th percentile.")] = None,
    fps: Annotated[float | None, typer.Option(rich_help_panel="Budget", help="Least inferences per second.")] = None,
    peak_memory_mib: Annotated[
        float | None, typer.Option(rich_help_panel="Budget", help="Peak memory over the runtime's own.")
    ] = None,
    file_size_kib: Annotated[
        float | None, typer.Option(rich_help_panel="Budget", help="Size of the model file.")
    ] = None,
    accuracy_min: Annotated[
        float | None, typer.Option(rich_help_panel="Budget", help="Least test accuracy, a fraction.")
    ] = None,
    accuracy_drop_max: Annotated[
        float | None, typer.Option(rich_help_panel="Budget", help="Most accuracy lost to the teacher, a fraction.")
    ] = None,
    slice_accuracy_drop_max: Annotated[
        float | None,
        typer.Option(rich_help_panel="Budget", help="The same in the worst class or slice, in percentage points."),
    ] = None,
    energy_mj: Annotated[
        float | None, typer.Option(rich_help_panel="Budget", help="Energy per inference, gross.")
    ] = None,
    power_w: Annotated[float | None, typer.Option(rich_help_panel="Budget", help="Mean power while inferring.")] = None,
    as_json: AsJson = False,
) -> None:
    """Distil and quantize the best student that fits a board's budget.

    Exit code: 0 every constraint met, 1 one missed or no student fits, 6 undecided; see the README for the others.

    Examples:
        edgekd fit --profile rpi4

        edgekd fit --profile rpi5 --task fashion-mnist --latency-p90-ms 2 --file-size-kib 100

        edgekd fit my_recipe.toml --profile rpi4 --out runs/mine --resume

        edgekd fit --profile rpi4 --profile rpi5 --dry-run

        edgekd fit --profile rpi4 --space my_students.py:space --latency-p90-ms 2

        edgekd fit --profile rpi4 --board pi@raspberrypi.local --search halving

        edgekd fit --profile rpi4 --task mine.py --teacher mine.onnx --objective auto

        edgekd fit --profile rpi4 --task fashion-mnist --regime semi_supervised --labels 100

        edgekd fit --profile rpi4 --accuracy-drop-max 0.02 --slice-accuracy-drop-max 8 --qat always

        edgekd fit --profile rpi4 --accuracy-drop-max 0.01 --steps learned --mixed

        edgekd fit --profile rpi4 --space my_attention.py:space --allow-float-ops
    """
    from edgekd.pipeline.distillation.flags import TeachingFlags
    from edgekd.pipeline.quantization.options import QuantizationFlags
    from edgekd.pipeline.settings import budget_from_flags, require_fit_extra, resolve

    flags = budget_from_flags(
        {
            "latency_p50_ms": latency_p50_ms,
            "latency_p90_ms": latency_p90_ms,
            "latency_p95_ms": latency_p95_ms,
            "latency_p99_ms": latency_p99_ms,
            "fps": fps,
            "peak_memory_mib": peak_memory_mib,
            "file_size_kib": file_size_kib,
            "accuracy_min": accuracy_min,
            "accuracy_drop_max": accuracy_drop_max,
            "slice_accuracy_drop_max": slice_accuracy_drop_max,
            "energy_mj": energy_mj,
            "power_w": power_w,
        }
    )
    names: list[str | None] = [*profile] if profile else [None]
    teaching = TeachingFlags(objective, regime, labels, teacher, tune_minutes, tune_search)
    rounding = QuantizationFlags(qat, steps, mixed, allow_float_ops, float_io, opset)
    each = [
        resolve(name, recipe, task, flags, seed, ablation, search, teaching, rounding, seeds, space) for name in names
    ]
    boards = [settings.profile.name for settings in each]
    if board is not None and len(each) > 1:
        raise ConfigurationError(f"--board is one board, but there are {len(each)} profiles: {', '.join(boards)}")
    if len(set(boards)) < len(boards):
        raise ConfigurationError(f"--profile is given twice for the same board: {', '.join(boards)}")
    with ConsoleProgress() as progress:
        for settings in each:
            progress.stage("budget", _budget_line(settings, with_name=len(each) > 1))
        require_fit_extra()
        # Threads that wait busily starve each other where cores are shared. Read when torch is first imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from edgekd.pipeline.boards.timing import BoardAddress

        address = BoardAddress(board, identity, accept_new_host_key) if board is not None else None
        try:
            if dry_run:
                from edgekd.pipeline.fitting.plan import plan_all

                plans = plan_all(each, address, progress)
            else:
                from edgekd.pipeline.fitting.fit import FitOptions, fit_all

                command = shlex.join(["edgekd", *sys.argv[1:]])
                fitted = fit_all(each, FitOptions(out, resume, require_measured, command, address), progress)
        except InfeasibleBudgetError as error:
            if as_json:
                typer.echo(frontier_json(error))
            raise
    if dry_run:
        _show_plans(plans, as_json)
    elif len(fitted) == 1:
        show(fitted[0].report, fitted[0].run.path, as_json)
    else:
        show_all([(one.report, one.run.path) for one in fitted], as_json)


def _budget_line(settings: Settings, *, with_name: bool) -> str:
    limits = ", ".join(
        f"{name} {limit:g} ({settings.budget_source[name]})" for name, limit in settings.budget.constraints().items()
    )
    return f"{settings.profile.name}: {limits}" if with_name else limits


def _show_plans(plans: Sequence[FitPlan], as_json: bool) -> None:
    if as_json:
        dumped = [plan.model_dump(mode="json") for plan in plans]
        typer.echo(json.dumps(dumped[0] if len(dumped) == 1 else dumped, indent=2))
        return
    for plan in plans:
        print_plan(plan, Console(highlight=False))
