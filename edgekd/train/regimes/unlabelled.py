"""Few labels, or none of the real inputs at all."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from edgekd.errors import ConfigurationError
from edgekd.records import DataFree, Hard, SemiSupervised
from edgekd.tasks import Outputs, Split, student_inputs
from edgekd.train.examples import Examples, examples_of, labels_of, logits_of
from edgekd.train.loop import Additions
from edgekd.train.objectives import Loss
from edgekd.train.objectives.signals import UNLABELLED
from edgekd.train.regimes.setting import Note, Outcome, Setting, for_steps, of_responses


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


def data_free(setting: Setting) -> Outcome:
    """Inputs made from the teacher, and its answers to them; no real training input is looked at.

    The validation split still decides when to stop: without any real data nothing could say how good the student is.

    Raises:
        ConfigurationError: the teacher has no batch norm whose statistics could be met, or no classes.
    """
    setting.require_classes("distill.regime = 'data_free'")
    options = setting.recipe.data_free
    inputs = invert(setting.teacher.to(setting.device), setting.native, options, setting.seed, setting.device)
    objectives = [o for o in of_responses(setting.recipe.objectives) if o.needs_teacher] or [Hard()]
    steps = setting.recipe.training.epochs * max(1, len(setting.data.train) // setting.recipe.training.batch_size)
    choices = logits_of(setting.teacher, inputs, setting.device).argmax(1)
    made, schedule = for_steps(setting.recipe.training, steps, Split(inputs.numpy(), choices.numpy()))
    examples = examples_of(made, setting.shape, setting.teacher_logits(made))
    student = setting.fresh_student()
    trained = setting.learn_from(student, "student", examples, Loss(objectives), schedule=schedule)
    return Outcome(student, trained, trained.steps, {"synthesised": len(inputs)})


def invert(
    teacher: nn.Module, shape: tuple[int, int, int], options: DataFree, seed: int, device: torch.device
) -> Tensor:
    """Inputs (N, C, H, W) whose features have the statistics the teacher's batch norms remember.

    (DeepInversion: Yin et al. 2020, arXiv:1912.08795, equations 2 to 4, without the competition term.) Minimises the
    cross-entropy with a drawn class, plus the squared distances of the batch's channel means and variances to the
    running ones, plus the mean squared difference of neighbouring places.
    """
    norms = [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        raise ConfigurationError(
            "distill.regime = 'data_free': the teacher has no batch norm, whose statistics inputs are made from"
        )
    teacher.eval()
    generator = torch.Generator().manual_seed(seed)
    distances: list[Tensor] = []

    def compare(module: nn.Module, args: tuple[Tensor, ...], _output: object) -> None:
        assert isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
        assert module.running_var is not None
        variance, mean = torch.var_mean(args[0], dim=(0, 2, 3), correction=0)
        scale = module.running_var.mean() + 1e-6
        distances.append(
            ((mean - module.running_mean).square().mean() / scale)
            + ((variance - module.running_var).square().mean() / scale**2)
        )

    handles = [norm.register_forward_hook(compare) for norm in norms]
    try:
        parts = []
        for start in range(0, options.inputs, 256):
            count = min(256, options.inputs - start)
            inputs = torch.randn(count, *shape, generator=generator).to(device).requires_grad_()
            optimizer = torch.optim.Adam([inputs], lr=options.learning_rate)
            with torch.no_grad():
                classes = teacher(inputs[:1]).shape[1]
            wanted = torch.randint(classes, (count,), generator=generator).to(device)
            for _ in range(options.iterations):
                distances.clear()
                loss = functional.cross_entropy(teacher(inputs), wanted)
                loss = loss + options.statistics_weight * torch.stack(distances).mean()
                for axis in (2, 3):
                    if inputs.shape[axis] > 1:
                        loss = loss + options.smoothness_weight * inputs.diff(dim=axis).square().mean()
                (inputs.grad,) = torch.autograd.grad(loss, inputs)
                optimizer.step()
            parts.append(inputs.detach().cpu())
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(parts)
