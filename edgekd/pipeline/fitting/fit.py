"""`edgekd fit`: profile, budget and task in; a distilled int8 student and its report out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.load import dump_toml
from edgekd.pipeline.boards.timing import BoardAddress
from edgekd.pipeline.console import Progress
from edgekd.pipeline.fitting.prepare import Prepared, load, prepare
from edgekd.pipeline.fitting.reporting import fit_report, write
from edgekd.pipeline.fitting.run import FitRun, StageNames
from edgekd.pipeline.settings import Settings
from edgekd.records import Report
from edgekd.store import RunDirectory
from edgekd.tasks import Task

SHARED_STAGES = ("teacher", "student-", "rung", "short-", "chosen-", "scratch")
"""What runs for several boards take from each other, where its inputs are the same."""


@dataclass(frozen=True)
class FitOptions:
    """What the command line says of a fit beside the settings. `board`: candidates are timed there before training."""

    out: Path | None
    resume: bool
    require_measured: bool
    command: str
    board: BoardAddress | None = None


@dataclass(frozen=True)
class Fitted:
    """What a fit ends with."""

    run: RunDirectory
    report: Report


def fit(settings: Settings, options: FitOptions, progress: Progress) -> Fitted:
    """Distil, quantize and convert the best student that is predicted to meet the budget.

    Nothing is written before the task's data, the recipe and the budget have been checked. What is finished is kept
    when the run stops early, and `resume` goes on from there.

    Raises:
        ConfigurationError: the task, recipe or output cannot be used.
        InfeasibleBudgetError: no student is predicted to meet the budget.
        BoardError: the board on which candidates are to be checked failed.
        BuildError: training diverged, or conversion, audit or parity failed.
    """
    return fit_all([settings], options, progress)[0]


def fit_all(all_settings: Sequence[Settings], options: FitOptions, progress: Progress) -> list[Fitted]:
    """A fit for each profile: one task, one teacher, and every student that two boards have in common trained once.

    All budgets are checked before anything is trained. With several profiles, `out` gets a folder for each.

    Raises:
        as `fit`.
    """
    task, recipe = load(all_settings[0], progress)
    several = len(all_settings) > 1
    plans = [prepare(one, recipe, task, options.board, progress) for one in all_settings]
    names, done = StageNames(), list[Fitted]()
    for plan in plans:
        name = plan.settings.profile.name
        out = options.out / name if options.out is not None and several else options.out
        run = RunDirectory.create(out, task.name, name, resume=options.resume)
        try:
            with run.lock("edgekd fit"):
                if done:
                    run.take_stages(done[0].run, SHARED_STAGES)
                run.write_recipe(dump_toml(plan.recipe))
                report = _report(run, plan, task, names, options, progress)
        except BaseException:
            run.discard_if_unused()
            raise
        done.append(Fitted(run, report))
    return done


def _report(
    run: RunDirectory, plan: Prepared, task: Task, names: StageNames, options: FitOptions, progress: Progress
) -> Report:
    with run.work("features") as features:
        fit_run = FitRun(run, plan, task, names, progress, features)
        found = fit_run.run_stages()
    report = fit_report(
        plan.settings,
        task,
        found,
        fit_run.stages.costs,
        seed=plan.recipe.seed,
        require_measured=options.require_measured,
        command=options.command,
    )
    write(run, report)
    return report
