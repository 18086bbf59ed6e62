"""`edgekd distill`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

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
from edgekd.cli.errors import KEPT

if TYPE_CHECKING:
    from edgekd.pipeline.distillation.evaluation import Distilled
    from edgekd.records import Ablation


def distill_command(
    context: typer.Context,
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (TOML); flags go over it.")] = None,
    task: TaskName = None,
    objective: ObjectiveKind = None,
    regime: RegimeName = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of the student. Default: the task's.")] = None,
    seed: Seed = None,
    labels: Labels = None,
    teacher: TeacherFile = None,
    tune_minutes: TuneMinutes = None,
    tune_search: TuneSearchName = None,
    tune_file: Annotated[Path | None, typer.Option(help="Keep the trials here; a later run goes on from them.")] = None,
    ablation: Annotated[
        Literal["scratch", "full"],
        typer.Option(help="full: also each objective alone and all together, over --seeds, with one teacher."),
    ] = "scratch",
    seeds: Seeds = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Keep where each training stands in this directory, and go on from there.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Go on from a deployed student, a run of fit or weights of --save, with the regime continual.",
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the student's weights (a torch state dict) here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a teacher, a student by it, and the same student from scratch; say what distillation brought.

    Nothing is decided by the test split.

    Examples:
        edgekd distill --task watch-gestures --objective dkd

        edgekd distill --task fashion-mnist --regime semi_supervised --labels 100 --epochs 15 --json
    """
    # Threads that wait busily starve each other where cores are shared. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from edgekd.pipeline.distillation.flags import TeachingFlags
    from edgekd.pipeline.distillation.settings import (
        checkpoint_directory,
        require_writable,
        resolve_distillation,
        write_weights,
    )
    from edgekd.pipeline.settings import require_fit_extra

    flags = TeachingFlags(objective, regime, labels, teacher, tune_minutes, tune_search, start)
    resolved = resolve_distillation(recipe, task, seed, flags)
    context.meta[KEPT] = (
        "nothing is kept; with --checkpoints DIR the same command goes on from where it was stopped"
        if checkpoints is None
        else f"what was trained is kept in {checkpoints}; the same command goes on from there"
    )
    require_fit_extra()
    require_writable(save)
    with ConsoleProgress() as progress:
        from edgekd.pipeline.distillation.ablation import ablate
        from edgekd.pipeline.distillation.distill import distill

        taught = distill(resolved, progress, epochs, tune_file, checkpoint_directory(checkpoints))
        if save is not None:
            write_weights(taught.student, save)
        compared = None
        if ablation == "full":
            compared = ablate(taught.teaching, taught.design, taught.recipe.distill, seeds or resolved.ablation_seeds)
    if as_json:
        result = taught.result.model_dump(mode="json")
        more = {} if compared is None else {"ablation": compared.model_dump(mode="json")}
        typer.echo(json.dumps({**result, **more}, indent=2))
    else:
        _show(taught.result)
        if compared is not None:
            _show_ablation(compared)


def _show(result: Distilled) -> None:
    typer.echo(f"{result.task}, {result.regime}, {' + '.join(result.objectives)}, seed {result.seed}")
    if result.metric != "accuracy":
        typer.echo(f"figures are {result.metric}: {result.better} is better")
    typer.echo(f"{'':12}{'test':>8}{'validation':>12}{'ECE':>8}")
    for name, test, validation, ece in (
        ("teacher", result.teacher_accuracy, result.teacher_val_accuracy, result.teacher_ece),
        ("scratch", result.scratch_accuracy, result.scratch_val_accuracy, result.scratch_ece),
        ("distilled", result.accuracy, result.val_accuracy, result.ece),
    ):
        typer.echo(f"{name:12}{test:8.4f}{validation:12.4f}" + ("" if ece is None else f"{ece:8.4f}"))
    low, high = result.gain_interval
    typer.echo(f"gain over scratch on the test split: {result.gain:+.4f} [{low:+.4f}, {high:+.4f}]")
    typer.echo(f"agreement with the teacher: {result.agreement:.4f} ({result.agreement_measure})")
    typer.echo(f"{result.steps} steps, {result.seconds:.1f} s, {result.params} parameters")
    for name, value in result.notes.items():
        typer.echo(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
    for name in result.hurt_slices:
        found = result.slices[name]
        typer.echo(
            f"hurt beyond its noise: {name}: {found['student']:.4f} against {found['scratch']:.4f} from scratch, "
            f"{found['inputs']:.0f} inputs"
        )
    if result.chosen_because is not None:
        typer.echo(f"objectives chosen: {result.chosen_because}")
    typer.echo(result.verdict)


def _show_ablation(ablation: Ablation) -> None:
    typer.echo(f"\nablation over seeds {', '.join(map(str, ablation.seeds))}, test split, one teacher for all")
    typer.echo(f"{'':28}{'mean':>8}{'spread':>8}{'gain':>9}  95 % of the mean gain, paired t")
    for row in ablation.rows:
        spread = "" if row.spread is None else f"{row.spread:.4f}"
        interval = "" if row.gain_interval is None else f"[{row.gain_interval[0]:+.4f}, {row.gain_interval[1]:+.4f}]"
        typer.echo(f"{row.name:28}{row.mean:8.4f}{spread:>8}{row.gain:+9.4f}  {interval}")
