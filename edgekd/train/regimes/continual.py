"""A student that is deployed already learns from new data or a new teacher, and must not forget."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.errors import ConfigurationError
from edgekd.records import Hinton
from edgekd.tasks import Split
from edgekd.train.additions import Additions
from edgekd.train.examples import examples_of, labels_of, logits_of
from edgekd.train.metrics import gain_interval
from edgekd.train.objectives import Loss
from edgekd.train.objectives.signals import Signals
from edgekd.train.regimes.setting import Note, Outcome, Setting


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
        value = super().__call__(replace(signals, teacher_logits=teacher), progress)
        if self._memory is None:
            return value
        return value + self._memory(replace(signals, teacher_logits=deployed), progress)


def split_old_and_new(train: Split, share: float) -> tuple[Split, Split]:
    """The training split in two: whole groups in their order where there are any, else rows in their order.

    With a share of 1 the old data are the new ones too.

    Raises:
        ConfigurationError: one part would be empty.
    """
    if share == 1:
        return train, train
    if train.groups is not None:
        names = list(dict.fromkeys(train.groups.tolist()))
        old = np.isin(train.groups, names[: max(1, round(share * len(names)))])
    else:
        old = np.arange(len(train)) < round(share * len(train))
    if old.all() or not old.any():
        raise ConfigurationError(f"distill.continual.old_share = {share} leaves no old or no new data")
    return train.part(old), train.part(~old)


def continual(setting: Setting) -> Outcome:
    """Go on from the deployed student with the new data and the teacher of now (arXiv:1606.09282).

    A part of the old inputs is held back from all that is trained here; the metric on it before and after, with the
    paired interval of its fall, says what was forgotten. A student deployed before may have learnt from that part: then
    the figure before is flattered and forgetting is, if anything, overstated. It is kept as it was where no epoch beats
    it on the validation split.

    Raises:
        ConfigurationError: the split leaves a part empty.
    """
    options = setting.recipe.continual
    if options.start is not None and setting.deployed is None:
        raise ConfigurationError(f"distill.continual.start = {options.start!r} was not loaded: use `edgekd distill`")
    old, new = split_old_and_new(setting.data.train, options.old_share)
    held = np.zeros(len(old), dtype=bool)
    held[:: max(2, min(20, len(old) // 50))] = True
    check, known = old.part(held), old.part(~held)
    new = known if options.old_share == 1 else new
    if setting.deployed is None:
        student, first_steps = _deployed(setting, known)
    else:
        student, first_steps = copy.deepcopy(setting.deployed), 0
    deployed = copy.deepcopy(student)
    seen = examples_of(new, setting.shape)
    both = torch.cat((setting.teacher_logits(new), logits_of(deployed, seen.inputs, setting.device)), 1)
    trained = setting.learn_from(
        student,
        "student",
        replace(seen, teacher_logits=both),
        MemoryLoss(Loss(setting.recipe.objectives), options.memory_weight),
        additions=Additions(features=setting.features(setting.teacher, torch.from_numpy(new.inputs))),
        may_keep_start=setting.deployed is not None,
    )
    notes, warnings = _forgotten(setting, deployed, student, check)
    notes = {"old_inputs": len(known), "new_inputs": len(new), **notes}
    if setting.deployed is not None:
        notes |= {"start": options.start, "start_kept": trained.best_epoch < 0}
    return Outcome(student, trained, first_steps + trained.steps, notes, warnings)


def _deployed(setting: Setting, known: Split) -> tuple[nn.Module, int]:
    if setting.recipe.continual.old_share == 1:
        raise ConfigurationError(
            "distill.continual.old_share = 1 is for a student that is deployed already: name it in "
            "distill.continual.start (on the command line --from), or give a share below 1"
        )
    student = setting.fresh_student()
    data, logits = replace(setting.data, train=known), setting.teacher_logits(known)
    return student, setting.learn(student, "deployed", data=data, teacher_logits=logits).steps


def _forgotten(
    setting: Setting, deployed: nn.Module, student: nn.Module, check: Split
) -> tuple[dict[str, Note], tuple[str, ...]]:
    """The metric before and after on old inputs and on the validation split, and a warning where it fell."""
    metric = setting.metric

    def answers(model: nn.Module, split: Split) -> Tensor:
        return logits_of(model.to(setting.device), examples_of(split, setting.shape).inputs, setting.device)

    labels = labels_of(check)
    before, after = answers(deployed, check), answers(student, check)
    low, high = gain_interval(metric, before, after, labels)
    validation = setting.data.validation
    notes: dict[str, Note] = {
        "old_checked": len(check),
        "old_accuracy_before": metric.value(before, labels),
        "old_accuracy_after": metric.value(after, labels),
        "forgotten": metric.score(before, labels) - metric.score(after, labels),
        "forgotten_low": low,
        "forgotten_high": high,
        "forgot": low > 0,
        "val_accuracy_before": metric.value(answers(deployed, validation), labels_of(validation)),
        "val_accuracy_after": metric.value(answers(student, validation), labels_of(validation)),
    }
    if low <= 0:
        return notes, ()
    fell = f"from {notes['old_accuracy_before']:.4f} to {notes['old_accuracy_after']:.4f}"
    return notes, (
        f"THE STUDENT FORGOT: {metric.words} on {len(check)} old inputs went {fell} (by {low:.4f} to {high:.4f}): "
        "raise distill.continual.memory_weight, or keep old data among the new",
    )
