"""`edgekd distill`: the training part alone: teacher, the same student from scratch, and distilled; what it brought."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from edgekd.core.architecture import Architecture, operator_list
from edgekd.errors import ConfigurationError
from edgekd.pipeline.boards.deployed import deployed_student, with_deployed_design
from edgekd.pipeline.console import Progress
from edgekd.pipeline.distillation.evaluation import Distilled, evaluate_distillation
from edgekd.pipeline.distillation.kept_settings import hold_to
from edgekd.pipeline.distillation.parts import Design, Given
from edgekd.pipeline.distillation.teaching import Teaching
from edgekd.pipeline.distillation.tune import Choice, Chosen, choice_of, choose, require_tuner
from edgekd.pipeline.fitting.user_space import space_of
from edgekd.pipeline.settings import with_task_schedules
from edgekd.pipeline.stages import Unkept
from edgekd.records import Distillation, Recipe
from edgekd.tasks import Task, load_task
from edgekd.train.examples import threads_for

USUAL_STUDENT = {
    "ds-cnn": {"stem_stride": 2, "kernel": 5, "width": 16, "depth": 3},
    "inverted-residual": {"stem_stride": 2, "kernel": 3, "width": 8, "depth": 1, "expansion": 3},
}
"""The student where the recipe fixes none: about five thousand parameters, at the task's own window or resolution."""


@dataclass(frozen=True, eq=False)
class Taught:
    """One distillation's models and its teaching, for those who want more than figures; `recipe` as it was followed."""

    recipe: Recipe
    teaching: Teaching
    design: Design
    result: Distilled
    student: nn.Module
    scratch: nn.Module

    @property
    def teacher(self) -> nn.Module:
        """The teacher as it taught."""
        return self.teaching.teacher.module


def student_design(recipe: Recipe, task: Task) -> Design:
    """The recipe's student, with usual values for what it does not fix.

    Raises:
        ConfigurationError: a space or choice that does not exist.
    """
    space = space_of(task.default_space if recipe.student.space == "auto" else recipe.student.space)
    dimensions = space.dimensions(task.input_shape)
    choices: dict[str, Any] = {name: values[-1] for name, values in dimensions.items()}
    choices |= {name: value for name, value in USUAL_STUDENT.get(space.name, {}).items() if name in choices}
    for name, value in recipe.student.fixed.items():
        if name not in dimensions or value not in dimensions[name]:
            allowed = {key: list(values) for key, values in dimensions.items()}
            raise ConfigurationError(f"student.fixed.{name} = {value!r}: space {space.name} allows {allowed}")
        choices[name] = value
    return Design(space.name, choices)


def student_architecture(recipe: Recipe, task: Task) -> Architecture:
    """The network of `student_design`; raises as that does."""
    return student_design(recipe, task).architecture(task)


def distill(
    recipe: Recipe,
    progress: Progress,
    epochs: int | None = None,
    tune_file: Path | None = None,
    checkpoints: Path | None = None,
) -> Taught:
    """Train a teacher, a student by the recipe's regime, and the same student from scratch; evaluate all three.

    Args:
        recipe: what to do.
        progress: told what happens.
        epochs: of the student, over the recipe's and the task's own.
        tune_file: where the trials of a search for objectives are kept; a second run goes on from them.
        checkpoints: a directory in which every training keeps where it stands; a second run goes on from there.

    Raises:
        ConfigurationError: the recipe, the task or the regime's data cannot be used; checkpoints of other settings.
        BuildError: training diverged.
    """
    progress.stage("data", recipe.task.name)
    task = load_task(recipe.task.name, recipe.task.options)
    features = None if checkpoints is None else checkpoints / "features"
    recipe = with_deployed_design(with_task_schedules(recipe, task))
    if epochs is not None:
        training = recipe.distill.training.model_copy(update={"epochs": epochs})
        recipe = with_distillation(recipe, training=training)
    if checkpoints is not None:
        hold_to(checkpoints, recipe, task)
    given = Given(feature_cache=features, checkpoints=checkpoints)
    return distill_task(recipe, task, progress, given, choice_of(recipe.distill, tune_file))


def distill_task(
    recipe: Recipe, task: Task, progress: Progress, given: Given | None = None, choice: Choice | None = None
) -> Taught:
    """As `distill`, on a loaded task, with what was trained before."""
    design = student_design(recipe, task)
    teaching = Teaching(recipe, task, Unkept(progress, recipe.seed), given)
    require_tuner(choice)
    if recipe.distill.continual.start is not None:
        # What is no student to go on from is told before a teacher is trained.
        deployed_student(recipe.distill.continual.start, design.architecture(task))
    teacher, distillation = teaching.teacher, recipe.distill
    chosen: Chosen | None = None
    if choice is not None:
        progress.stage("choose", "objectives, by short runs on the validation split")
        with threads_for(operator_list(design.architecture(task)).macs):
            chosen = choose(teaching.setting(design), choice, teaching.identity())
        progress.update(chosen.reason)
        distillation = chosen.distill
    progress.stage("student", f"{distillation.regime}, {said(distillation)}")
    student, trained = teaching.student("student", design, distillation)
    scratch, scratch_trained = teaching.scratch("scratch", design, trained.steps, distillation.training)
    progress.stage("evaluate", f"{len(task.test)} test inputs")
    recipe = recipe.model_copy(update={"distill": distillation})
    result = evaluate_distillation(
        recipe,
        teaching,
        teaching.setting(design, distillation),
        {"student": student, "scratch": scratch, "teacher": teacher.module},
        trained,
        scratch_trained,
        chosen,
    )
    for warning in result.warnings[len(teaching.warnings) :]:
        progress.warn(warning)
    return Taught(recipe, teaching, design, result, student, scratch)


def with_distillation(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with other values under `distill`."""
    return recipe.model_copy(update={"distill": recipe.distill.model_copy(update=changes)})


def said(distillation: Distillation) -> str:
    """The objectives with their weights, for people."""
    return " + ".join(f"{objective.weight:g} {objective.kind}" for objective in distillation.objectives)
