"""A student that is deployed already learns from new data, and must not forget."""

from __future__ import annotations

import copy

import numpy as np
import torch

from edgekd.errors import ConfigurationError
from edgekd.records import Hinton
from edgekd.tasks import Development, Split
from edgekd.train.examples import Examples, correct, examples_of, logits_of
from edgekd.train.objectives import Loss
from edgekd.train.objectives.signals import Signals
from edgekd.train.regimes.setting import Outcome, Setting


class MemoryLoss(Loss):
    """The recipe's terms from the teacher, plus `weight` times soft targets of the deployed student.

    Teacher logits are (B, 2 K): the teacher's, then the deployed student's.
    """

    def __init__(self, objectives: Loss, weight: float) -> None:
        super().__init__([*objectives.objectives])
        self._memory = Loss([Hinton(weight=weight, temperature=2.0)]) if weight > 0 else None

    def __call__(self, signals: Signals, progress: float = 0.0) -> torch.Tensor:
        """The scalar loss of a batch."""
        teacher, deployed = signals.teacher().chunk(2, 1)
        value = super().__call__(Signals(signals.student_logits, signals.labels, teacher), progress)
        if self._memory is None:
            return value
        return value + self._memory(Signals(signals.student_logits, signals.labels, deployed), progress)


def split_old_and_new(train: Split, share: float) -> tuple[Split, Split]:
    """The training split in two: whole groups in their order where there are any, else rows in their order.

    Raises:
        ConfigurationError: one part would be empty.
    """
    if train.groups is not None:
        names = list(dict.fromkeys(train.groups.tolist()))
        old = np.isin(train.groups, names[: max(1, round(share * len(names)))])
    else:
        old = np.arange(len(train)) < round(share * len(train))
    if old.all() or not old.any():
        raise ConfigurationError(f"distill.continual.old_share = {share} leaves no old or no new data")

    def part(rows: np.ndarray) -> Split:
        return Split(train.inputs[rows], train.labels[rows], None if train.groups is None else train.groups[rows])

    return part(old), part(~old)


def continual(setting: Setting) -> Outcome:
    """Train on the old data, then go on with the new data and the teacher (arXiv:1606.09282).

    A twentieth of the old inputs' share is held back from both trainings; the accuracy on it before and after says what
    was forgotten. Terms on features are left out of the second part, for their layers would have to be stored.

    Raises:
        ConfigurationError: the split leaves a part empty, or the objectives are all on features.
    """
    options = setting.recipe.continual
    old, new = split_old_and_new(setting.data.train, options.old_share)
    held = np.zeros(len(old), dtype=bool)
    held[:: max(2, min(20, len(old) // 50))] = True
    check, known = Split(old.inputs[held], old.labels[held]), Split(old.inputs[~held], old.labels[~held])
    student = setting.fresh_student()
    first_data = Development(known, setting.data.validation)
    outward = [objective for objective in setting.recipe.objectives if not objective.needs_features]
    if not outward:
        raise ConfigurationError("distill.regime = 'continual' needs an objective on labels or responses")
    first = setting.learn(
        student, "deployed", data=first_data, objectives=outward, teacher_logits=setting.teacher_logits(known)
    )
    deployed = copy.deepcopy(student)
    before = _accuracy(deployed, check, setting)
    seen = examples_of(new, setting.shape)
    both = torch.cat((setting.teacher_logits(new), logits_of(deployed, seen.inputs, setting.device)), 1)
    loss = MemoryLoss(Loss(outward), options.memory_weight)
    trained = setting.learn_from(student, "student", Examples(seen.inputs, seen.labels, both), loss)
    after = _accuracy(student, check, setting)
    notes = {
        "old_inputs": len(known),
        "new_inputs": len(new),
        "val_accuracy_before": first.validation_accuracy,
        "old_accuracy_before": before,
        "old_accuracy_after": after,
        "forgotten": before - after,
    }
    return Outcome(student, trained, first.steps + trained.steps, dict(notes))


def _accuracy(model: torch.nn.Module, split: Split, setting: Setting) -> float:
    examples = examples_of(split, setting.shape)
    return float(correct(logits_of(model, examples.inputs, setting.device), examples.labels).float().mean())
