"""What every regime works with, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.errors import ConfigurationError
from edgekd.records import Distillation, Hard, Objective, Training
from edgekd.tasks import Development, Outputs, Split
from edgekd.train.additions import Additions, Checkpointing
from edgekd.train.distill import train_model
from edgekd.train.examples import Examples, examples_of, logits_of
from edgekd.train.features import TeacherFeatures
from edgekd.train.loop import Progress, Trained, train
from edgekd.train.metrics import Metric, metric_of
from edgekd.train.objectives import OUTPUTS_IN_WORDS, Loss

Shape = tuple[int, int, int]
MOST_EPOCHS = 40
Note = float | int | str | bool | None


@dataclass(frozen=True, eq=False)
class Setting:
    """What a regime has to work with. There is no test split in it.

    Args:
        data: the labelled training split, and the validation split, at the task's own size.
        native: (C, H, W) of the task's inputs, which the teacher takes.
        shape: (C, H, W) that the student takes.
        recipe: objectives, schedule and the regimes' options.
        teacher: trained, from (B, *native) to logits (B, K).
        build_student: gives a student with fresh weights.
        build_assistant: the same, about so many times as wide.
        train_teacher: (seed, share of the window or resolution) to another trained teacher and the shape it takes.
        unlabelled: (M, *native) float32, inputs without labels.
        feature_cache: where features of the teacher are kept between students.
        checkpoints: a directory in which every training keeps where it stands, by its title.
        deployed: the student that `continual` goes on from; None lets it train one.
    """

    data: Development
    native: Shape
    shape: Shape
    recipe: Distillation
    teacher: nn.Module
    build_student: Callable[[], nn.Module]
    build_assistant: Callable[[float], nn.Module]
    train_teacher: Callable[[int, float], tuple[nn.Module, Shape]]
    seed: int
    device: torch.device
    on_progress: Progress = lambda message: None
    unlabelled: np.ndarray | None = None
    feature_cache: Path | None = None
    checkpoints: Path | None = None
    deployed: nn.Module | None = None

    def checkpoint(self, title: str) -> Checkpointing | None:
        """Where the training of that title keeps where it stands."""
        if self.checkpoints is None:
            return None
        path = self.checkpoints / f"{self.recipe.regime}-{title.replace(' ', '-')}.ckpt"
        return Checkpointing(path, key=repr(self.recipe))

    def fresh_student(self, seed_offset: int = 0) -> nn.Module:
        """A student whose weights depend on the seed alone."""
        torch.manual_seed(self.seed + 1000 * seed_offset)
        return self.build_student()

    def teacher_logits(self, split: Split | None = None) -> Tensor:
        """The teacher's logits (N, K) for a split, the training split by default."""
        return logits_of(
            self.teacher.to(self.device), examples_of(split or self.data.train, self.native).inputs, self.device
        )

    def examples(self, teacher_logits: Tensor | None = None) -> Examples:
        """The training split as the student sees it."""
        return examples_of(self.data.train, self.shape, teacher_logits)

    @property
    def validation(self) -> Examples:
        """The validation split as the student sees it."""
        return examples_of(self.data.validation, self.shape, metric=self.data.metric)

    @property
    def outputs(self) -> Outputs:
        """What the outputs are."""
        return self.data.train.outputs

    @property
    def metric(self) -> Metric:
        """By what models are judged."""
        return metric_of(self.outputs, self.data.metric)

    def require_classes(self, what: str) -> None:
        """Refuse what has no meaning but for classes.

        Raises:
            ConfigurationError: the outputs are no classes.
        """
        if self.outputs != "classes":
            raise ConfigurationError(
                f"{what} is for classes, but the outputs are {OUTPUTS_IN_WORDS[self.outputs]}: use the regime offline, "
                "self, online, multi_teacher, progressive, curriculum, semi_supervised, continual, reverse or "
                "multi_task"
            )

    def features(self, teacher: nn.Module, inputs: Tensor) -> TeacherFeatures | None:
        """A teacher's layers for inputs as it takes them, where an objective needs them."""
        featured = any(objective.needs_features and objective.ever_counts for objective in self.recipe.objectives)
        return TeacherFeatures(teacher, inputs, self.device, self.feature_cache) if featured else None

    def learn(
        self,
        model: nn.Module,
        title: str,
        *,
        teacher_logits: Tensor | None = None,
        objectives: Sequence[Objective] | None = None,
        additions: Additions = Additions(),
        teacher: nn.Module | None = None,
        data: Development | None = None,
        shape: Shape | None = None,
        schedule: Training | None = None,
    ) -> Trained:
        """Train a model on a split by the recipe, or by what is given instead."""
        return train_model(
            model,
            data or self.data,
            shape or self.shape,
            objectives or self.recipe.objectives,
            schedule or self.recipe.training,
            seed=self.seed,
            device=self.device,
            title=title,
            on_progress=self.on_progress,
            teacher_logits=teacher_logits,
            teacher=teacher or self.teacher,
            feature_cache=self.feature_cache,
            additions=additions,
            checkpoint=self.checkpoint(title),
        )

    def learn_from(
        self,
        model: nn.Module,
        title: str,
        examples: Examples,
        loss: Loss,
        *,
        additions: Additions = Additions(),
        schedule: Training | None = None,
        validation: Examples | None = None,
        may_keep_start: bool = False,
    ) -> Trained:
        """Train a model on examples and with a loss that are not the recipe's own."""
        return train(
            model,
            examples,
            validation or self.validation,
            loss,
            schedule or self.recipe.training,
            seed=self.seed,
            device=self.device,
            title=title,
            on_progress=self.on_progress,
            may_keep_start=may_keep_start,
            additions=additions,
            checkpoint=self.checkpoint(title),
        )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a regime gives: the student, how its own training went, the steps of all models trained, and notes.

    `warnings` are what a user must not overlook.
    """

    model: nn.Module
    trained: Trained
    total_steps: int
    notes: dict[str, Note] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def of_responses(objectives: Sequence[Objective]) -> list[Objective]:
    """The objectives that need no layers inside a teacher; the labels alone where that leaves none."""
    return [objective for objective in objectives if not objective.needs_features] or [Hard()]


def for_steps(schedule: Training, steps: int, split: Split) -> tuple[Split, Training]:
    """A split and a schedule that come to at least so many steps in a usual number of epochs, without an early stop.

    Few inputs stand in the split several times over: an epoch of one or two steps would be mostly validation.
    """
    least = max(1, steps * schedule.batch_size // MOST_EPOCHS)
    times = max(1, -(-least // len(split)))
    if times > 1:
        rows = np.tile(np.arange(len(split)), times)
        split = split.part(rows)
    per_epoch = max(1, len(split) // min(schedule.batch_size, len(split)))
    epochs = -(-steps // per_epoch)
    return split, schedule.model_copy(update={"epochs": epochs, "patience": epochs})
