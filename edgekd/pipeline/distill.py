"""`edgekd distill`: the training part alone: teacher, the same student from scratch, and distilled; what it brought."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekd.core.architecture import Architecture, operator_list
from edgekd.core.spaces import space_named
from edgekd.errors import ConfigurationError
from edgekd.nn.students import Student
from edgekd.pipeline.console import Progress
from edgekd.pipeline.distill_evaluation import Distilled, evaluate_distillation
from edgekd.pipeline.settings import with_task_schedules
from edgekd.pipeline.tune import Chosen, Search, choose_objective, tune
from edgekd.records import Recipe, Training
from edgekd.records.regimes import Regime
from edgekd.tasks import Development, Split, Task, load_task
from edgekd.train.calibration import Calibrated, expected_calibration_error, fit_scaling
from edgekd.train.distill import HARD_ONLY, train_model
from edgekd.train.examples import examples_of, logits_of, resolve_device, threads_for
from edgekd.train.loop import Checkpointing, Trained
from edgekd.train.objectives import Loss
from edgekd.train.regimes import REGIME_FUNCTIONS, Outcome, Setting, for_steps, hide_labels
from edgekd.train.teachers import load_teacher

logger = logging.getLogger(__name__)

Shape = tuple[int, int, int]

USUAL_STUDENT = {
    "ds-cnn": {"stem_stride": 2, "kernel": 5, "width": 16, "depth": 3},
    "inverted-residual": {"stem_stride": 2, "kernel": 3, "width": 8, "depth": 1, "expansion": 3},
}
"""The student where the recipe fixes none: about five thousand parameters, at the task's own window or resolution."""

TEACHER_STEPS = 600
"""A teacher trained on few labels takes at least so many steps, whatever its epochs come to."""

WITH_FEATURES: frozenset[Regime] = frozenset({"offline", "curriculum", "multi_teacher", "adversarial"})


@dataclass(frozen=True, eq=False)
class Taught:
    """The models of one distillation, for those who want more than figures; `recipe` as it was followed."""

    recipe: Recipe
    task: Task
    result: Distilled
    teacher: nn.Module
    student: nn.Module
    scratch: nn.Module


@dataclass(frozen=True)
class Choice:
    """How short runs choose: one of each kind, or a search for so many minutes, kept in a file to go on from."""

    minutes: float | None = None
    search: Search = "bayes"
    storage: Path | None = None


@dataclass(frozen=True, eq=False)
class Given:
    """What need not be trained again, from runs of the same task, seed and schedule.

    Args:
        teacher: the trained teacher, which took `teacher_seconds`.
        scratch: scratch students by their steps; those that are trained are put there too.
        more_teachers: an ensemble's other teachers by seed and input share; likewise.
        feature_cache: where the teacher's features are kept.
        checkpoints: a directory in which every training keeps where it stands; a second run goes on from there.
    """

    teacher: nn.Module | None = None
    teacher_seconds: float = 0.0
    scratch: dict[int, tuple[nn.Module, Trained]] = field(default_factory=dict)
    more_teachers: dict[tuple[int, float], tuple[nn.Module, Shape]] = field(default_factory=dict)
    feature_cache: Path | None = None
    checkpoints: Path | None = None

    def checkpoint(self, title: str) -> Checkpointing | None:
        """Where the training of that title keeps where it stands."""
        return None if self.checkpoints is None else Checkpointing(self.checkpoints / f"{title}.ckpt")


def student_architecture(recipe: Recipe, task: Task) -> Architecture:
    """The recipe's student, with usual values for what it does not fix.

    Raises:
        ConfigurationError: a space or choice that does not exist.
    """
    return _architecture(recipe, task, 1.0)


def _architecture(recipe: Recipe, task: Task, widening: float) -> Architecture:
    space = space_named(task.default_space if recipe.student.space == "auto" else recipe.student.space)
    dimensions = space.dimensions(task.input_shape)
    choices = {name: values[-1] for name, values in dimensions.items()}
    choices |= {name: value for name, value in USUAL_STUDENT.get(space.name, {}).items() if name in choices}
    for name, value in recipe.student.fixed.items():
        if name not in dimensions or value not in dimensions[name]:
            allowed = {key: list(values) for key, values in dimensions.items()}
            raise ConfigurationError(f"student.fixed.{name} = {value!r}: space {space.name} allows {allowed}")
        choices[name] = value
    if widening > 1:
        wide_enough = [width for width in dimensions["width"] if width >= widening * choices["width"]]
        choices["width"] = wide_enough[0] if wide_enough else dimensions["width"][-1]
    return space.architecture(choices, task.input_shape, len(task.classes))


def distill(
    recipe: Recipe,
    progress: Progress,
    teacher_file: Path | None = None,
    epochs: int | None = None,
    choice: Choice | None = None,
    checkpoints: Path | None = None,
) -> Taught:
    """Train a teacher, a student by the recipe's regime, and the same student from scratch; evaluate all three.

    Args:
        recipe: what to do.
        progress: told what happens.
        teacher_file: a teacher that is brought.
        epochs: of the student, over the recipe's and the task's own.
        choice: how short runs on the validation split are to choose the objectives first.
        checkpoints: a directory in which every training keeps where it stands; a second run goes on from there.

    Raises:
        ConfigurationError: the recipe, the task or the regime's data cannot be used.
        BuildError: training diverged.
    """
    progress.stage("data", recipe.task.name)
    task = load_task(recipe.task.name, recipe.task.options)
    given = Given(
        teacher=None if teacher_file is None else load_teacher(teacher_file, task.teacher.build),
        feature_cache=None if checkpoints is None else checkpoints / "features",
        checkpoints=checkpoints,
    )
    recipe = with_task_schedules(recipe, task)
    if epochs is not None:
        training = recipe.distill.training.model_copy(update={"epochs": epochs})
        recipe = recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"training": training})})
    return distill_task(recipe, task, progress, given, choice)


def distill_task(
    recipe: Recipe, task: Task, progress: Progress, given: Given | None = None, choice: Choice | None = None
) -> Taught:
    """As `distill`, on a loaded task, with what was trained before."""
    return _Distillation(recipe, task, progress, given or Given(), choice).run()


class _Distillation:
    """One distillation: what its parts share."""

    def __init__(self, recipe: Recipe, task: Task, progress: Progress, given: Given, choice: Choice | None) -> None:
        self.recipe, self.task, self.progress, self.given, self.choice = recipe, task, progress, given, choice
        self.device = resolve_device(recipe.device)
        self.architecture = student_architecture(recipe, task)
        Loss(recipe.distill.objectives)
        self.warnings: list[str] = []
        self.train, self.unlabelled = self._labels()

    def _labels(self) -> tuple[Split, np.ndarray | None]:
        """The labelled training inputs, and those without labels; where labels are to be hidden they are."""
        options, regime = self.recipe.distill.semi_supervised, self.recipe.distill.regime
        if options.labels is None and not options.label_groups:
            if regime == "semi_supervised" and self.task.unlabelled is None:
                raise ConfigurationError(
                    f"distill.regime = 'semi_supervised': task {self.task.name} has no unlabelled inputs "
                    "(Task.unlabelled). Give them, or hide labels: distill.semi_supervised.labels = N or "
                    ".label_groups = [...] (on the command line --labels N)"
                )
            return self.task.train, self.task.unlabelled
        labelled, rest = hide_labels(self.task.train, options, self.recipe.seed)
        if self.task.unlabelled is not None:
            rest = np.concatenate([rest, self.task.unlabelled])
        return labelled, rest

    def run(self) -> Taught:
        """Train what is not given, and evaluate."""
        teacher, teacher_seconds = self._teacher()
        teacher, before, after = self._calibrated(teacher)
        setting = self._setting(teacher)
        chosen: Chosen | None = None
        if self.choice is not None:
            self.progress.stage("choose", "objectives, by short runs on the validation split")
            with threads_for(operator_list(self.architecture).macs):
                chosen = self._choose(setting, self.choice)
            self.progress.update(chosen.reason)
            self.recipe = self.recipe.model_copy(update={"distill": chosen.distill})
            setting = self._setting(teacher)
        regime = self.recipe.distill.regime
        featured = [objective.kind for objective in self.recipe.distill.objectives if objective.needs_features]
        if featured and regime not in WITH_FEATURES:
            self._warn(f"the regime {regime} leaves out {', '.join(featured)}: it carries no features of the teacher")
        with threads_for(operator_list(self.architecture).macs):
            self.progress.stage("student", f"{regime}, {self._said_objectives()}")
            started = time.perf_counter()
            outcome = REGIME_FUNCTIONS[regime](setting)
            seconds = time.perf_counter() - started
            scratch, scratch_trained = self._scratch(setting, outcome)
        self.progress.stage("evaluate", f"{len(self.task.test)} test inputs")
        models = {"student": outcome.model, "scratch": scratch, "teacher": teacher}
        result = evaluate_distillation(
            self.recipe,
            self.task,
            setting,
            models,
            outcome,
            scratch_trained,
            seconds=seconds,
            teacher_seconds=teacher_seconds,
            teacher_val_ece=(before, after),
            warnings=tuple(self.warnings),
            chosen=chosen,
        )
        for warning in result.warnings[len(self.warnings) :]:
            self.progress.warn(warning)
        return Taught(self.recipe, self.task, result, teacher, outcome.model, scratch)

    def _choose(self, setting: Setting, choice: Choice) -> Chosen:
        if choice.minutes is None:
            return choose_objective(setting)
        identity = self.task.content_hash()
        return tune(setting, choice.minutes, search=choice.search, storage=choice.storage, identity=identity)

    def _said_objectives(self) -> str:
        return " + ".join(f"{objective.weight:g} {objective.kind}" for objective in self.recipe.distill.objectives)

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        self.progress.warn(message)

    def _teacher(self) -> tuple[nn.Module, float]:
        if self.given.teacher is not None:
            return self.given.teacher, self.given.teacher_seconds
        options = self.recipe.distill.semi_supervised
        hidden = len(self.train) < len(self.task.train)
        split = self.task.train if options.teacher_labels == "all" and hidden else self.train
        self.progress.stage("teacher", f"{len(split)} labels")
        started = time.perf_counter()
        teacher, _ = self._trained_teacher(self.recipe.seed, 1.0, split)
        return teacher, time.perf_counter() - started

    def _trained_teacher(self, seed: int, share: float, split: Split) -> tuple[nn.Module, Shape]:
        torch.manual_seed(seed)
        teacher = self.task.teacher.build()
        schedule = self.recipe.teacher
        channels, height, width = self.task.input_shape
        shape = (channels, height if height == 1 else _scaled(height, share), _scaled(width, share))
        if schedule is None:
            return teacher.eval(), shape
        if len(split) < len(self.task.train):
            planned = schedule.epochs * max(1, len(split) // schedule.batch_size)
            split, schedule = for_steps(schedule, max(TEACHER_STEPS, planned), split)
        train_model(
            teacher,
            Development(split, self.task.validation),
            shape,
            HARD_ONLY,
            schedule,
            seed=seed,
            device=self.device,
            title="teacher",
            on_progress=self.progress.update,
            checkpoint=self.given.checkpoint(f"teacher-{seed}-{share:g}"),
        )
        return teacher, shape

    def _another_teacher(self, seed: int, share: float) -> tuple[nn.Module, Shape]:
        if (seed, share) not in self.given.more_teachers:
            self.given.more_teachers[seed, share] = self._trained_teacher(seed, share, self.train)
        return self.given.more_teachers[seed, share]

    def _calibrated(self, teacher: nn.Module) -> tuple[nn.Module, float, float]:
        """The teacher as it teaches, and its calibration error on the validation split before and after."""
        validation = examples_of(self.task.validation, self.task.input_shape)
        logits = logits_of(teacher.to(self.device), validation.inputs, self.device)
        if logits.shape[1] != len(self.task.classes):
            raise ConfigurationError(
                f"the teacher has {logits.shape[1]} outputs, the task {len(self.task.classes)} classes"
            )
        before = expected_calibration_error(logits, validation.labels)
        how = self.recipe.distill.calibration
        if how == "none":
            return teacher, before, before
        scale, shift = fit_scaling(logits, validation.labels, how)
        after = expected_calibration_error(logits * scale + shift, validation.labels)
        return Calibrated(teacher, scale, shift).to(self.device), before, after

    def _setting(self, teacher: nn.Module) -> Setting:
        return Setting(
            data=Development(self.train, self.task.validation),
            native=self.task.input_shape,
            shape=self.architecture.input_shape,
            recipe=self.recipe.distill,
            teacher=teacher,
            build_student=lambda: Student(self.architecture),
            build_assistant=lambda widening: Student(_architecture(self.recipe, self.task, widening)),
            train_teacher=self._another_teacher,
            seed=self.recipe.seed,
            device=self.device,
            on_progress=self.progress.update,
            unlabelled=self.unlabelled,
            feature_cache=self.given.feature_cache,
            checkpoints=self.given.checkpoints,
        )

    def _scratch(self, setting: Setting, outcome: Outcome) -> tuple[nn.Module, Trained]:
        """The same student from the labels alone, for as many steps as the distilled one was allowed."""
        steps = outcome.trained.steps
        if steps in self.given.scratch:
            return self.given.scratch[steps]
        self.progress.stage("scratch", f"the same student, {steps} steps, labels alone")
        scratch = setting.fresh_student()
        split, schedule = equal_schedule(self.recipe.distill.training, steps, self.train)
        trained = train_model(
            scratch,
            Development(split, self.task.validation),
            setting.shape,
            HARD_ONLY,
            schedule,
            seed=setting.seed,
            device=self.device,
            title="scratch",
            on_progress=self.progress.update,
            exact_steps=steps,
            checkpoint=self.given.checkpoint("scratch"),
        )
        self.given.scratch[steps] = (scratch, trained)
        return scratch, trained


def equal_schedule(schedule: Training, steps: int, split: Split) -> tuple[Split, Training]:
    """A split and a schedule of at least so many steps: those given where their epochs come to enough."""
    per_epoch = max(1, len(split) // min(schedule.batch_size, len(split)))
    return (split, schedule) if per_epoch * schedule.epochs >= steps else for_steps(schedule, steps, split)


def _scaled(size: int, share: float) -> int:
    return max(2, 2 * round(size * share / 2))
