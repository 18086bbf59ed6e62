"""`edgekd fit`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from edgekd.cli.console import ConsoleProgress
from edgekd.cli.results import show


def fit_command(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe (TOML). Without it and --task: edgekd.toml here.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="The board: a name from `edgekd profile list`, or a profile's path.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="watch-gestures, fashion-mnist, or your own FILE.py.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory. Default: runs/<utc>-<task>-<profile>/.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of everything random. Default: the recipe's, 0.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out, or with the latest run.")] = False,
    ablation: Annotated[
        Literal["none", "scratch", "full"] | None,
        typer.Option(help="What to train beside the student, for comparison. Default: the recipe's, scratch."),
    ] = None,
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
    energy_mj: Annotated[
        float | None, typer.Option(rich_help_panel="Budget", help="Energy per inference, gross.")
    ] = None,
    power_w: Annotated[float | None, typer.Option(rich_help_panel="Budget", help="Mean power while inferring.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json on stdout.")] = False,
) -> None:
    """Distil and quantize the best student that fits a board's budget.

    Exit code: 0 every constraint met, 1 one missed or no student fits, 6 undecided; see the README for the others.

    Examples:
        edgekd fit --profile rpi4

        edgekd fit --profile rpi5 --task fashion-mnist --latency-p90-ms 2 --file-size-kib 100

        edgekd fit my_recipe.toml --profile rpi4 --out runs/mine --resume
    """
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
            "energy_mj": energy_mj,
            "power_w": power_w,
        }
    )
    settings = resolve(profile, recipe, task, flags, seed, ablation)
    with ConsoleProgress() as progress:
        progress.stage(
            "budget",
            ", ".join(
                f"{name} {limit:g} ({settings.budget_source[name]})"
                for name, limit in settings.budget.constraints().items()
            ),
        )
        require_fit_extra()
        # Threads that wait busily starve each other where cores are shared. Read when torch is first imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from edgekd.pipeline.fit import fit

        fitted = fit(
            settings,
            out=out,
            resume=resume,
            require_measured=require_measured,
            command=shlex.join(["edgekd", *sys.argv[1:]]),
            progress=progress,
        )
    show(fitted.report, fitted.run.path, as_json)
