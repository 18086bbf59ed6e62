"""The one way to teach: a teacher, students of any architecture by any regime, and the same from scratch.

`edgekd distill`, `edgekd fit` and the ablations of both go through here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.core.architecture import operator_list
from edgekd.errors import ConfigurationError
from edgekd.nn.students import Student
from edgekd.pipeline.boards.deployed import deployed_student
from edgekd.pipeline.distillation.parts import Design, Given, RememberingSetting, Shape, TaskTeacher
from edgekd.pipeline.stages import Keeper, Made, TrainedModel
from edgekd.records import Distillation, Recipe, Training
from edgekd.store import hash_file, hash_inputs
from edgekd.tasks import Development, Split, Task
from edgekd.train.calibration import Calibrated, expected_calibration_error, fit_scaling
from edgekd.train.distill import HARD_ONLY, train_model
from edgekd.train.examples import examples_of, logits_of, resolve_device, threads_for
from edgekd.train.objectives import Loss
from edgekd.train.regimes import REGIME_FUNCTIONS, Setting, for_steps, hide_labels, why_without_features
from edgekd.train.teachers import load_teacher

TEACHER_STEPS = 600
"""A teacher trained on few labels takes at least so many steps, whatever its epochs come to."""


class Teaching:
    """One task taught by one recipe.

    Raises:
        ConfigurationError: objectives that cannot stand together, no such teacher file, or the regime's data is
            missing; before anything is trained.
    """

    def __init__(self, recipe: Recipe, task: Task, keeper: Keeper, given: Given | None = None) -> None:
        self.recipe, self.task, self.keeper, self.given = recipe, task, keeper, given or Given()
        self.device = resolve_device(recipe.device)
        check_objectives(recipe, task)
        self.train, self.unlabelled = labelled_part(recipe, task)
        self.brought = self._brought()
        self.warnings: list[str] = []
        self._logits: dict[str, Tensor] = {}
        if missing := unlabelled_classes(self.train, task):
            self.warn(
                f"NO LABEL OF {', '.join(missing)} is left to learn from: the student cannot tell it but by what a "
                "teacher that saw it says; keep at least one input of each class"
            )

    @property
    def data(self) -> Development:
        """The splits that decisions may read, with the labels that are known."""
        return replace(self.task.development(), train=self.train)

    def warn(self, message: str) -> None:
        """Tell people now, and keep it for the report."""
        if message not in self.warnings:
            self.warnings.append(message)
            self.keeper.progress.warn(message)

    def _brought(self) -> tuple[nn.Module, str] | None:
        """A teacher that need not be trained, and its identity."""
        if self.given.teacher is not None:
            return self.given.teacher, "given"
        if self.recipe.teacher_file is None:
            return None
        path = Path(self.recipe.teacher_file)
        module = load_teacher(path, self.task.teacher.build)
        return module, hash_file(path)

    @cached_property
    def teacher(self) -> TaskTeacher:
        """The recipe's teacher: brought, or trained; calibrated on the validation split where that is asked for."""
        if self.brought is not None:
            (module, identity), seconds = self.brought, self.given.teacher_seconds
        else:
            module, identity, seconds = self._own_teacher()
        validation = examples_of(self.task.validation, self.task.input_shape, metric=self.task.metric)
        logits = logits_of(module.to(self.device), validation.inputs, self.device)
        if logits.shape[1] != len(self.task.classes):
            raise ConfigurationError(
                f"the teacher has {logits.shape[1]} outputs, the task {len(self.task.classes)} classes"
            )
        before: float | None = None
        after: float | None = None
        if self.task.outputs != "regression":
            before = after = expected_calibration_error(logits, validation.labels)
        how = self.recipe.distill.calibration
        if how != "none":
            scale, shift = fit_scaling(logits, validation.labels, how)
            logits = logits * scale + shift
            after = expected_calibration_error(logits, validation.labels)
            module = Calibrated(module, scale, shift).to(self.device)
        accuracy = validation.metric.value(logits, validation.labels)
        return TaskTeacher(module, f"{identity} {how}", seconds, accuracy, (before, after))

    def _own_teacher(self) -> tuple[nn.Module, str, float]:
        hidden = len(self.train) < len(self.task.train)
        every = hidden and self.recipe.distill.semi_supervised.teacher_labels == "all"
        split = self.task.train if every else self.train
        how = f"trained on {len(split)} labels" if self.recipe.teacher else "brought trained by the task"
        self.keeper.progress.stage("teacher", how)
        module, record = self._trained_teacher("teacher", self.recipe.seed, self.task.input_shape, split)
        return module, record.weights_sha256, record.wall_s

    def another_teacher(self, seed: int, share: float) -> tuple[nn.Module, Shape]:
        """A further teacher of an ensemble, which sees a share of the window or resolution; and the shape it takes."""
        if (seed, share) not in self.given.more_teachers:
            channels, height, width = self.task.input_shape
            shape = (channels, height if height == 1 else _scaled(height, share), _scaled(width, share))
            name = f"teacher-{seed}-{round(100 * share)}"
            module, _ = self._trained_teacher(name, seed, shape, self.train)
            self.given.more_teachers[seed, share] = module, shape
        return self.given.more_teachers[seed, share]

    def _trained_teacher(self, name: str, seed: int, shape: Shape, split: Split) -> tuple[nn.Module, TrainedModel]:
        schedule = self.recipe.teacher

        def build() -> nn.Module:
            torch.manual_seed(seed)
            return self.task.teacher.build()

        def make(model: nn.Module) -> Made:
            if schedule is None:
                return Made()
            part, follow = split, schedule
            if len(split) < len(self.task.train):
                planned = schedule.epochs * max(1, len(split) // schedule.batch_size)
                part, follow = for_steps(schedule, max(TEACHER_STEPS, planned), split)
            trained = train_model(
                model,
                replace(self.data, train=part),
                shape,
                HARD_ONLY,
                follow,
                seed=seed,
                device=self.device,
                title="teacher",
                on_progress=self.keeper.progress.update,
                checkpoint=self.given.checkpoint(name),
            )
            return Made(trained)

        inputs = {"schedule": schedule, "teacher_seed": seed, "shape": shape, "labels": self._labels_key(split)}
        return self.keeper.model(name, inputs, build, make)

    def _labels_key(self, split: Split) -> str:
        return f"{len(split)} of {len(self.task.train)} {self.recipe.distill.semi_supervised.label_groups}"

    def setting(self, design: Design, distill: Distillation | None = None, seed: int | None = None) -> Setting:
        """What a regime works with for a student of that design; the recipe's own regime by default."""
        architecture = design.architecture(self.task)
        start = (distill or self.recipe.distill).continual.start
        return RememberingSetting(
            data=self.data,
            native=self.task.input_shape,
            shape=architecture.input_shape,
            recipe=distill or self.recipe.distill,
            teacher=self.teacher.module,
            build_student=lambda: Student(architecture),
            build_assistant=lambda widening: Student(design.architecture(self.task, widening)),
            train_teacher=self.another_teacher,
            seed=self.recipe.seed if seed is None else seed,
            device=self.device,
            on_progress=self.keeper.progress.update,
            unlabelled=self.unlabelled,
            feature_cache=self.given.feature_cache,
            checkpoints=self.given.checkpoints,
            memory=self._logits,
            deployed=None if start is None else deployed_student(start, architecture),
        )

    def student(
        self, name: str, design: Design, distill: Distillation | None = None, seed: int | None = None
    ) -> tuple[Student, TrainedModel]:
        """A student taught by a regime, the recipe's own by default; kept under a stage's name.

        Raises:
            ConfigurationError: the regime's data is missing, or the teacher cannot give what it needs.
            BuildError: training diverged.
        """
        setting = self.setting(design, distill, seed)
        if self.given.checkpoints is not None and name != "student":
            # The trainings of one student have the same names as those of another.
            setting = replace(setting, checkpoints=self.given.checkpoints / name)
        distill = setting.recipe
        featured = [objective.kind for objective in distill.objectives if objective.needs_features]
        if featured and (why := why_without_features(distill)):
            self.warn(f"the regime {distill.regime} leaves out {', '.join(featured)}: {why}")
        architecture = design.architecture(self.task)

        def make(model: nn.Module) -> Made:
            with threads_for(operator_list(architecture).macs):
                outcome = REGIME_FUNCTIONS[distill.regime](setting)
            for warning in outcome.warnings:
                self.warn(warning)
            model.load_state_dict(outcome.model.state_dict())
            return Made(outcome.trained, total_steps=outcome.total_steps, detail=dict(outcome.notes))

        inputs = {
            "candidate": [design.space, dict(design.choices)],
            "distill": distill,
            "teacher": self.teacher.identity,
            "labels": self._labels_key(self.train),
            "student_seed": setting.seed,
        }
        return self.keeper.model(name, inputs, lambda: Student(architecture), make)

    def scratch(
        self, name: str, design: Design, steps: int, training: Training | None = None, seed: int | None = None
    ) -> tuple[nn.Module, TrainedModel]:
        """The same student from the labels alone, for just so many steps of a schedule, the recipe's by default."""
        architecture = design.architecture(self.task)
        seed = self.recipe.seed if seed is None else seed
        training = training or self.recipe.distill.training
        split, schedule = equal_schedule(training, steps, self.train)
        inputs = {
            "candidate": [design.space, dict(design.choices)],
            "schedule": schedule,
            "exact_steps": steps,
            "labels": self._labels_key(self.train),
            "student_seed": seed,
        }
        key = hash_inputs(**inputs)
        if key in self.given.scratch:
            return self.given.scratch[key]
        self.keeper.progress.stage(name, f"the same student, {steps} steps, labels alone")

        def build() -> nn.Module:
            torch.manual_seed(seed)
            return Student(architecture)

        def make(model: nn.Module) -> Made:
            with threads_for(operator_list(architecture).macs):
                trained = train_model(
                    model,
                    replace(self.data, train=split),
                    architecture.input_shape,
                    HARD_ONLY,
                    schedule,
                    seed=seed,
                    device=self.device,
                    title="scratch",
                    on_progress=self.keeper.progress.update,
                    exact_steps=steps,
                    checkpoint=self.given.checkpoint(name),
                )
            return Made(trained)

        self.given.scratch[key] = found = self.keeper.model(name, inputs, build, make)
        return found

    def identity(self) -> str:
        """Of the data and of what is known of its labels: trials of other data are not taken for these."""
        return hash_inputs(data=self.task.content_hash(), labels=self._labels_key(self.train))


def check_teaching(recipe: Recipe, task: Task) -> None:
    """Fail before anything is written where a recipe's teaching cannot be followed on a task.

    Raises:
        ConfigurationError: as `Teaching`.
    """
    check_objectives(recipe, task)
    labelled_part(recipe, task)
    if recipe.teacher_file is not None:
        load_teacher(Path(recipe.teacher_file), task.teacher.build)


def check_objectives(recipe: Recipe, task: Task) -> None:
    """Refuse objectives that cannot stand together, or that have no meaning for the task's outputs.

    Raises:
        ConfigurationError: with what to use instead.
    """
    Loss(recipe.distill.objectives).require(task.outputs)
    if task.outputs == "regression" and recipe.distill.calibration != "none":
        raise ConfigurationError(
            f"distill.calibration = {recipe.distill.calibration!r} is of probabilities, and values have none: "
            "use 'none'"
        )


def labelled_part(recipe: Recipe, task: Task) -> tuple[Split, np.ndarray | None]:
    """The labelled training inputs, and those without labels; where labels are to be hidden they are.

    Raises:
        ConfigurationError: the regime needs inputs without labels and there are none, or the labels to be kept do
            not exist.
    """
    options, regime = recipe.distill.semi_supervised, recipe.distill.regime
    if options.labels is None and not options.label_groups:
        if regime == "semi_supervised" and task.unlabelled is None:
            raise ConfigurationError(
                f"distill.regime = 'semi_supervised': task {task.name} has no unlabelled inputs "
                "(Task.unlabelled). Give them, or hide labels: distill.semi_supervised.labels = N or "
                ".label_groups = [...] (on the command line --labels N)"
            )
        return task.train, task.unlabelled
    labelled, rest = hide_labels(task.train, options, recipe.seed)
    if task.unlabelled is not None:
        rest = np.concatenate([rest, task.unlabelled])
    return labelled, rest


def unlabelled_classes(train: Split, task: Task) -> list[str]:
    """The classes of which a labelled split holds no input, or the labels that are true of none; [] for values."""
    if train.outputs == "regression":
        return []
    if train.outputs == "multi_label":
        there = set(np.flatnonzero((train.labels > 0).any(0)).tolist())
    else:
        there = set(np.unique(train.labels).tolist())
    return [str(name) for index, name in enumerate(task.classes) if index not in there]


def equal_schedule(schedule: Training, steps: int, split: Split) -> tuple[Split, Training]:
    """A split and a schedule of at least so many steps: those given where their epochs come to enough."""
    per_epoch = max(1, len(split) // min(schedule.batch_size, len(split)))
    return (split, schedule) if per_epoch * schedule.epochs >= steps else for_steps(schedule, steps, split)


def _scaled(size: int, share: float) -> int:
    return max(2, 2 * round(size * share / 2))
