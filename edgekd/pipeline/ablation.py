"""Which term of the loss paid: scratch, each objective alone, and all together, over seeds, from one teacher."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from edgekd.core.statistics import student_t
from edgekd.errors import ConfigurationError
from edgekd.pipeline.console import Progress
from edgekd.pipeline.distill import Given, Taught, distill_task
from edgekd.records import Hard, Objective, Record


class AblationRow(Record):
    """One set of objectives over the seeds. Accuracies are of the test split, one for each seed.

    `gain_interval` is of the mean gain over scratch, 95 %, by a paired t-test over seeds; None with a single seed.
    """

    name: str
    objectives: tuple[str, ...]
    accuracies: tuple[float, ...]
    mean: float
    spread: float | None
    gain: float
    gain_interval: tuple[float, float] | None
    agreement: float | None
    ece: float
    seconds: float


class Ablation(Record):
    """All rows, scratch first; the seeds are of students, for all of them have the same teacher."""

    seeds: tuple[int, ...]
    rows: tuple[AblationRow, ...]


def variants(objectives: Sequence[Objective]) -> dict[str, tuple[Objective, ...]]:
    """Each objective alone, with weight 1, and all together as the recipe weights them.

    Terms on features stand beside the labels, for alone they would leave the outputs untaught.
    """
    found: dict[str, tuple[Objective, ...]] = {}
    for objective in objectives:
        if isinstance(objective, Hard):
            continue
        if objective.needs_features:
            found[f"hard + {objective.kind}"] = (Hard(), objective)
        else:
            found[f"{objective.kind} alone"] = (objective.model_copy(update={"weight": 1.0, "weight_end": None}),)
    found["combined"] = tuple(objectives)
    return found


def ablate(first: Taught, seeds: int, progress: Progress) -> Ablation:
    """Train every variant with every seed, beside a distillation that has been run.

    Args:
        first: the recipe's own run with its own seed; its teacher teaches all.
        seeds: how many, from the recipe's own seed on.
        progress: told what happens.

    Raises:
        ConfigurationError: no seeds.
    """
    if seeds < 1:
        raise ConfigurationError(f"--seeds {seeds}: at least one is needed")
    recipe = first.recipe
    wanted = variants(recipe.distill.objectives)
    found: dict[str, list[Taught]] = {name: [] for name in wanted}
    for seed in range(recipe.seed, recipe.seed + seeds):
        given = Given(teacher=first.teacher)
        for name, objectives in wanted.items():
            progress.stage("ablation", f"seed {seed}, {name}")
            distill = recipe.distill.model_copy(update={"objectives": objectives, "calibration": "none"})
            varied = recipe.model_copy(update={"distill": distill, "seed": seed})
            found[name].append(distill_task(varied, first.task, progress, given))
    scratch = [taught.result for taught in found["combined"]]
    rows = [
        _row(
            "scratch",
            ("hard",),
            [result.scratch_accuracy for result in scratch],
            [0.0] * seeds,
            agreement=None,
            ece=statistics.mean(result.scratch_ece for result in scratch),
            seconds=statistics.mean(result.scratch_seconds for result in scratch),
        )
    ]
    for name, runs in found.items():
        results = [taught.result for taught in runs]
        rows.append(
            _row(
                name,
                results[0].objectives,
                [result.accuracy for result in results],
                [result.accuracy - result.scratch_accuracy for result in results],
                agreement=statistics.mean(result.agreement for result in results),
                ece=statistics.mean(result.ece for result in results),
                seconds=statistics.mean(result.seconds for result in results),
            )
        )
    return Ablation(seeds=tuple(range(recipe.seed, recipe.seed + seeds)), rows=tuple(rows))


def _row(
    name: str,
    objectives: tuple[str, ...],
    accuracies: Sequence[float],
    gains: Sequence[float],
    *,
    agreement: float | None,
    ece: float,
    seconds: float,
) -> AblationRow:
    return AblationRow(
        name=name,
        objectives=objectives,
        accuracies=tuple(accuracies),
        mean=statistics.mean(accuracies),
        spread=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        gain=statistics.mean(gains),
        gain_interval=paired_t_interval(gains),
        agreement=agreement,
        ece=ece,
        seconds=seconds,
    )


def paired_t_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of paired differences, by Student's t; None for fewer than two."""
    if len(differences) < 2:
        return None
    middle = statistics.mean(differences)
    half = student_t(len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
    return middle - half, middle + half
