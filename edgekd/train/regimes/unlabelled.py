"""Few labels, and the rest of the inputs without."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgekd.errors import ConfigurationError
from edgekd.records import SemiSupervised
from edgekd.tasks import Outputs, Split, student_inputs
from edgekd.train.additions import Additions
from edgekd.train.examples import Examples, labels_of, logits_of
from edgekd.train.objectives import Loss
from edgekd.train.objectives.signals import UNLABELLED
from edgekd.train.regimes.setting import Note, Outcome, Setting


def hide_labels(train: Split, options: SemiSupervised, seed: int) -> tuple[Split, np.ndarray]:
    """The split as those inputs that keep their labels, and the inputs of the others.

    Raises:
        ConfigurationError: more labels than there are, or groups that do not exist.
    """
    if options.label_groups:
        if train.groups is None:
            raise ConfigurationError("distill.semi_supervised.label_groups: the task's training split has no groups")
        names = np.asarray([str(group) for group in train.groups])
        missing = [group for group in options.label_groups if group not in names]
        if missing:
            known = ", ".join(sorted(set(names)))
            raise ConfigurationError(
                f"distill.semi_supervised.label_groups: no {', '.join(missing)}; there are {known}"
            )
        kept = np.isin(names, options.label_groups)
    else:
        kept = np.ones(len(train), dtype=bool)
    if options.labels is not None and train.outputs == "classes":
        kept = _same_number_for_each_class(train.labels, kept, options.labels, seed)
    elif options.labels is not None:
        kept = _drawn(kept, options.labels, seed)
    return train.part(kept), train.inputs[~kept]


def _drawn(allowed: np.ndarray, total: int, seed: int) -> np.ndarray:
    rows = np.flatnonzero(allowed)
    if total > len(rows):
        raise ConfigurationError(f"distill.semi_supervised.labels = {total}: only {len(rows)} inputs have labels")
    chosen = np.zeros(len(allowed), dtype=bool)
    chosen[np.random.default_rng(seed).permutation(rows)[:total]] = True
    return chosen


def _same_number_for_each_class(labels: np.ndarray, allowed: np.ndarray, total: int, seed: int) -> np.ndarray:
    classes = np.unique(labels[allowed])
    if total < len(classes):
        raise ConfigurationError(
            f"distill.semi_supervised.labels = {total} (--labels): there are {len(classes)} classes, and each needs one"
        )
    each, rest = divmod(total, len(classes))
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for index, name in enumerate(classes):
        rows = np.flatnonzero(allowed & (labels == name))
        wanted = each + (index < rest)
        if wanted > len(rows):
            raise ConfigurationError(
                f"distill.semi_supervised.labels = {total}: {wanted} of class {name} are wanted, {len(rows)} are there"
            )
        chosen[generator.permutation(rows)[:wanted]] = True
    return chosen


def semi_supervised(setting: Setting) -> Outcome:
    """Labels where there are any, the teacher's choice where it is sure, its soft targets everywhere.

    (Pseudo-labels: Lee 2013.) Each epoch goes over all inputs, labelled or not.

    Raises:
        ConfigurationError: there are no unlabelled inputs.
    """
    options = setting.recipe.semi_supervised
    if setting.unlabelled is None or len(setting.unlabelled) == 0:
        raise ConfigurationError(
            "distill.regime = 'semi_supervised' has no unlabelled inputs: the task gives none (Task.unlabelled), and "
            "neither distill.semi_supervised.labels nor .label_groups hides labels of the training split"
        )
    train = setting.data.train
    both = np.concatenate([train.inputs, setting.unlabelled])
    logits = logits_of(setting.teacher.to(setting.device), torch.from_numpy(both), setting.device)
    labels, used = pseudo_labels(logits, labels_of(train), options, setting.outputs)
    examples = Examples(torch.from_numpy(student_inputs(both, setting.shape)), labels, logits, setting.outputs)
    student = setting.fresh_student()
    additions = Additions(features=setting.features(setting.teacher, torch.from_numpy(both)))
    trained = setting.learn_from(student, "student", examples, Loss(setting.recipe.objectives), additions=additions)
    notes: dict[str, Note] = {
        "labelled": len(train),
        "unlabelled": len(setting.unlabelled),
        "pseudo_labelled_share": used,
        "teacher_labels": options.teacher_labels,
    }
    return Outcome(student, trained, trained.steps, notes)


def pseudo_labels(
    logits: Tensor, known: Tensor, options: SemiSupervised, outputs: Outputs = "classes"
) -> tuple[Tensor, float]:
    """Labels (N,) of the labelled inputs, which come first, then the teacher's where it is sure, else none.

    Of independent labels (N, K), each on its own. Of values there are none: nobody can say how sure the teacher is.

    Returns:
        The labels, and the share of the unlabelled inputs' labels that were given.
    """
    if outputs != "classes":
        others = logits[len(known) :]
        certainty = torch.sigmoid(others.abs()) if outputs == "multi_label" else torch.zeros_like(others)
        sure = (certainty >= max(options.threshold, 0.5)) & options.pseudo_labels
        return torch.cat((known, torch.where(sure, (others > 0).float(), torch.nan))), float(sure.float().mean())
    confidence, choice = logits[len(known) :].softmax(1).max(1)
    sure = (confidence >= options.threshold) & options.pseudo_labels
    labels = torch.cat((known, torch.where(sure, choice, UNLABELLED)))
    return labels, float(sure.float().mean())
