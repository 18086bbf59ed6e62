"""Which term of the loss paid: scratch, each objective alone, and all together, over seeds, from one teacher."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from edgekd.core.statistics import student_t
from edgekd.errors import ConfigurationError
from edgekd.pipeline.distillation.parts import Design
from edgekd.pipeline.distillation.teaching import Teaching
from edgekd.records import Ablation, AblationRow, Distillation, Hard, Objective
from edgekd.train.calibration import expected_calibration_error
from edgekd.train.examples import examples_of, logits_of
from edgekd.train.metrics import CLOSENESS


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


@dataclass(frozen=True)
class _Trial:
    """One student of one seed, on the test split."""

    accuracy: float
    scratch_accuracy: float
    agreement: float
    ece: float | None
    scratch_ece: float | None
    seconds: float
    scratch_seconds: float


def ablate(teaching: Teaching, design: Design, distill: Distillation, seeds: int) -> Ablation:
    """Train every variant of a student with every seed, each beside scratch at its own steps.

    The test split is read, so nothing may be decided by what comes out.

    Args:
        teaching: gives the teacher, which teaches all.
        design: of the student.
        distill: the recipe's regime and objectives.
        seeds: how many, from the recipe's own seed on.

    Raises:
        ConfigurationError: no seeds.
    """
    if seeds < 1:
        raise ConfigurationError(f"--seeds {seeds}: at least one is needed")
    wanted = variants(distill.objectives)
    found: dict[str, list[_Trial]] = {name: [] for name in wanted}
    numbers = range(teaching.recipe.seed, teaching.recipe.seed + seeds)
    test = _Test(teaching, design)
    for seed in numbers:
        for name, objectives in wanted.items():
            teaching.keeper.progress.stage("ablation", f"seed {seed}, {name}")
            varied = distill.model_copy(update={"objectives": objectives})
            found[name].append(_trial(teaching, design, varied, seed, name, test))
    combined = found["combined"]
    rows = [
        _row(
            "scratch",
            ("hard",),
            [trial.scratch_accuracy for trial in combined],
            [0.0] * seeds,
            agreement=None,
            ece=_mean([trial.scratch_ece for trial in combined]),
            seconds=statistics.mean(trial.scratch_seconds for trial in combined),
        )
    ]
    for name, trials in found.items():
        rows.append(
            _row(
                name,
                tuple(objective.kind for objective in wanted[name]),
                [trial.accuracy for trial in trials],
                [test.metric.of_score(trial.accuracy - trial.scratch_accuracy) for trial in trials],
                agreement=statistics.mean(trial.agreement for trial in trials),
                ece=_mean([trial.ece for trial in trials]),
                seconds=statistics.mean(trial.seconds for trial in trials),
            )
        )
    return Ablation(seeds=tuple(numbers), rows=tuple(rows))


class _Test:
    """The test split, and what the teacher says of it."""

    def __init__(self, teaching: Teaching, design: Design) -> None:
        task, self.device = teaching.task, teaching.device
        self.examples = examples_of(task.test, design.architecture(task).input_shape, metric=task.metric)
        self.metric = self.examples.metric
        inputs = examples_of(task.test, task.input_shape).inputs
        self.teacher = logits_of(teaching.teacher.module.to(self.device), inputs, self.device)

    def measured(self, model: nn.Module) -> tuple[float, float, float | None]:
        """The task's metric, agreement with the teacher, and calibration error where there is one."""
        logits, labels = logits_of(model.to(self.device), self.examples.inputs, self.device), self.examples.labels
        _, closeness = CLOSENESS[self.examples.outputs]
        ece = None if self.examples.outputs == "regression" else expected_calibration_error(logits, labels)
        return self.metric.value(logits, labels), closeness(logits, self.teacher), ece


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _trial(teaching: Teaching, design: Design, distill: Distillation, seed: int, name: str, test: _Test) -> _Trial:
    stage = f"ablation-{name.replace(' + ', '-').replace(' ', '-')}-{seed}"
    student, trained = teaching.student(stage, design, distill, seed)
    scratch, scratch_trained = teaching.scratch(f"{stage}-scratch", design, trained.steps, distill.training, seed)
    accuracy, agreement, ece = test.measured(student)
    scratch_accuracy, _, scratch_ece = test.measured(scratch)
    return _Trial(accuracy, scratch_accuracy, agreement, ece, scratch_ece, trained.wall_s, scratch_trained.wall_s)


def _row(
    name: str,
    objectives: tuple[str, ...],
    accuracies: Sequence[float],
    gains: Sequence[float],
    *,
    agreement: float | None,
    ece: float | None,
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
