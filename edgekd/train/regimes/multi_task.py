"""An auxiliary head beside the classes, thrown away after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from edgekd.errors import ConfigurationError
from edgekd.records import Objective
from edgekd.train.additions import Additions
from edgekd.train.features import layer_shapes, watching
from edgekd.train.objectives import Loss
from edgekd.train.objectives.signals import Signals
from edgekd.train.regimes.setting import Outcome, Setting

COARSE = 16


class TwoHeads(nn.Module):
    """A student and a head on its last features. In training (B, K + A), in evaluation the student's (B, K)."""

    def __init__(self, student: nn.Module, example: Tensor, auxiliary: int) -> None:
        super().__init__()
        shapes = layer_shapes(student, example)
        self.student = student
        self._layer = [name for name, (_, height, width) in shapes.items() if height * width > 1][-1]
        self.head = nn.Linear(shapes[self._layer][0], auxiliary)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, with the auxiliary outputs beside them while training."""
        if not self.training:
            logits: Tensor = self.student(inputs)
            return logits
        with watching(self.student, [self._layer]) as seen:
            logits = self.student(inputs)
        return torch.cat((logits, self.head(seen[self._layer].mean((2, 3)))), 1)


class AuxiliaryLoss(Loss):
    """The recipe's terms on the first K outputs, plus `weight` times the auxiliary head's own.

    The teacher's logits (B, K + A) carry the auxiliary targets behind its own: values to rebuild (mean squared
    difference) or, for groups, one-hot rows (cross-entropy).
    """

    def __init__(self, objectives: Sequence[Objective], classes: int, weight: float, groups: bool) -> None:
        super().__init__(objectives)
        self._classes, self._weight, self._groups = classes, weight, groups

    def __call__(self, signals: Signals, progress: float = 0.0) -> Tensor:
        """The scalar loss of a batch."""
        own, extra = signals.student_logits[:, : self._classes], signals.student_logits[:, self._classes :]
        teacher, target = signals.teacher()[:, : self._classes], signals.teacher()[:, self._classes :]
        auxiliary = functional.cross_entropy(extra, target) if self._groups else functional.mse_loss(extra, target)
        told = replace(signals, student_logits=own, teacher_logits=teacher)
        return super().__call__(told, progress) + self._weight * auxiliary


def multi_task(setting: Setting) -> Outcome:
    """The task's outputs, and an auxiliary head that must share the student's features (Caruana 1997).

    Raises:
        ConfigurationError: groups are the auxiliary task, and the training split has none.
    """
    options, examples = setting.recipe.multi_task, setting.examples()
    if options.auxiliary == "groups":
        if setting.data.train.groups is None:
            raise ConfigurationError(
                "distill.regime = 'multi_task' with auxiliary = 'groups': the training split has no groups "
                "(Split.groups); give them, or take auxiliary = 'inputs'"
            )
        _, index = np.unique(setting.data.train.groups, return_inverse=True)
        targets = functional.one_hot(torch.from_numpy(index)).float()
    else:
        targets = coarse(examples.inputs)
    logits = setting.teacher_logits()
    student = setting.fresh_student()
    both = TwoHeads(student, examples.inputs[:1], targets.shape[1])
    loss = AuxiliaryLoss(setting.recipe.objectives, logits.shape[1], options.weight, options.auxiliary == "groups")
    told = replace(examples, teacher_logits=torch.cat((logits, targets), 1))
    seen = torch.from_numpy(np.ascontiguousarray(setting.data.train.inputs))
    additions = Additions(features=setting.features(setting.teacher, seen), compared=student)
    trained = setting.learn_from(both, "student", told, loss, additions=additions)
    return Outcome(student.eval(), trained, trained.steps, {"auxiliary_outputs": targets.shape[1]})


def coarse(inputs: Tensor) -> Tensor:
    """Inputs (N, C, H, W) averaged to about 16 places a channel: (N, C * places)."""
    height, width = inputs.shape[2:]
    side = (1, min(COARSE, width)) if height == 1 else (min(4, height), min(4, width))
    return functional.adaptive_avg_pool2d(inputs, side).flatten(1)
