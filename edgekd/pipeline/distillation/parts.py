"""What teaching works with: a student's design, its teacher, and what was trained before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgekd.core.architecture import Architecture
from edgekd.pipeline.fitting.user_space import space_of
from edgekd.pipeline.stages import TrainedModel
from edgekd.tasks import Split, Task
from edgekd.train.loop import Checkpointing
from edgekd.train.regimes import Setting

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Design:
    """A student's architecture: a space and a choice in each of its dimensions."""

    space: str
    choices: Mapping[str, Any]

    def architecture(self, task: Task, widening: float = 1.0) -> Architecture:
        """The network for a task; `widening` takes the first width at least so many times as wide, or the widest."""
        space, choices = space_of(self.space), dict(self.choices)
        if widening > 1:
            widths = space.dimensions(task.input_shape)["width"]
            choices["width"] = next((width for width in widths if width >= widening * choices["width"]), widths[-1])
        return space.architecture(choices, task.input_shape, len(task.classes))


@dataclass(frozen=True, eq=False)
class Given:
    """What need not be trained again, from runs of the same task, seed and schedule.

    Args:
        teacher: the trained teacher, which took `teacher_seconds`.
        scratch: scratch students by what they depend on; those that are trained are put there too.
        more_teachers: an ensemble's other teachers by seed and input share; likewise.
        feature_cache: where the teacher's features are kept.
        checkpoints: a directory in which every training keeps where it stands; a second run goes on from there.
    """

    teacher: nn.Module | None = None
    teacher_seconds: float = 0.0
    scratch: dict[str, tuple[nn.Module, TrainedModel]] = field(default_factory=dict)
    more_teachers: dict[tuple[int, float], tuple[nn.Module, Shape]] = field(default_factory=dict)
    feature_cache: Path | None = None
    checkpoints: Path | None = None

    def checkpoint(self, title: str) -> Checkpointing | None:
        """Where the training of that title keeps where it stands."""
        return None if self.checkpoints is None else Checkpointing(self.checkpoints / f"{title}.ckpt")


@dataclass(frozen=True, eq=False)
class TaskTeacher:
    """A teacher as it teaches (calibrated where the recipe says so), and what it is on the validation split.

    `val_ece` is its calibration error before and after; `identity` changes with what it says.
    """

    module: nn.Module
    identity: str
    seconds: float
    val_accuracy: float
    val_ece: tuple[float | None, float | None]


@dataclass(frozen=True, eq=False)
class RememberingSetting(Setting):
    """A setting that asks the teacher about the training split once for all students."""

    memory: dict[str, Tensor] = field(default_factory=dict)

    def teacher_logits(self, split: Split | None = None) -> Tensor:
        """The teacher's logits (N, K) for a split, the training split by default."""
        # Only `reverse` trains the teacher further, so that what it said before no longer holds.
        if split is not None or self.recipe.regime == "reverse":
            return super().teacher_logits(split)
        if "train" not in self.memory:
            self.memory["train"] = super().teacher_logits()
        return self.memory["train"]
