"""More than one teacher: ensembles, a chain through an assistant, and the small one that helps the large one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgekd.errors import ConfigurationError
from edgekd.records import Hard, MultiTeacher
from edgekd.train.examples import correct, examples_of, logits_of
from edgekd.train.regimes.setting import Outcome, Setting, of_responses


def multi_teacher(setting: Setting) -> Outcome:
    """An ensemble of teachers teaches (You et al. 2017; confidence: Zhang et al. 2022, arXiv:2201.00007).

    Terms on features take the first teacher's layers.
    """
    options = setting.recipe.multi_teacher
    everyone = [setting.teacher_logits()]
    shares = options.input_shares or (1.0,)
    for index in range(1, options.teachers):
        teacher, shape = setting.train_teacher(setting.seed + 100 * index, shares[(index - 1) % len(shares)])
        inputs = examples_of(setting.data.train, shape).inputs
        everyone.append(logits_of(teacher.to(setting.device), inputs, setting.device))
    labels = torch.from_numpy(setting.data.train.labels)
    combined = combine(everyone, labels, options.combine)
    student = setting.fresh_student()
    trained = setting.learn(student, "student", teacher_logits=combined)
    notes = {"teachers": options.teachers, "combine": options.combine}
    return Outcome(student, trained, trained.steps, dict(notes))


def combine(everyone: list[Tensor], labels: Tensor, how: MultiTeacher | str) -> Tensor:
    """Several teachers' logits (N, K) as one teacher's: the logarithm of the weighted mean of their probabilities.

    Args:
        everyone: logits of each teacher.
        labels: (N,) with -1 where there is none.
        how: `mean`, `confidence` or `per_sample`, as `MultiTeacher` says.
    """
    log_probabilities = torch.stack([logits.log_softmax(1) for logits in everyone])
    probabilities = log_probabilities.exp()
    count, _, classes = probabilities.shape
    certainty = 1 + (probabilities * log_probabilities).sum(2) / math.log(classes)
    if how == "mean":
        weights = torch.full_like(certainty, 1 / count)
    elif how == "confidence":
        weights = (certainty + 1e-6) / (certainty + 1e-6).sum(0)
    else:
        own = probabilities.gather(2, labels.clamp(min=0)[None, :, None].expand(count, -1, 1))[:, :, 0]
        merit = torch.where(labels[None] >= 0, own, certainty)
        weights = torch.nn.functional.one_hot(merit.argmax(0), count).T.to(probabilities)
    return (weights[:, :, None] * probabilities).sum(0).clamp(min=1e-12).log()


def progressive(setting: Setting) -> Outcome:
    """The teacher teaches an assistant, the assistant the student (Mirzadeh et al. 2020, arXiv:1902.03393)."""
    torch.manual_seed(setting.seed + 7)
    assistant = setting.build_assistant(setting.recipe.progressive.widening)
    first = setting.learn(assistant, "assistant", teacher_logits=setting.teacher_logits())
    student = setting.fresh_student()
    logits = logits_of(assistant, setting.examples().inputs, setting.device)
    # The assistant sees what the student sees; the task's own teacher no longer speaks.
    objectives = of_responses(setting.recipe.objectives)
    trained = setting.learn(student, "student", teacher_logits=logits, objectives=objectives)
    notes = {
        "assistant_parameters": sum(parameter.numel() for parameter in assistant.parameters()),
        "assistant_val_accuracy": first.validation_accuracy,
    }
    return Outcome(student, trained, first.steps + trained.steps, dict(notes))


def reverse(setting: Setting) -> Outcome:
    """The small one helps the large one, which then teaches it (Yuan et al. 2020, arXiv:1909.11723).

    A student learns from the labels; the teacher, which goes on from where it is, learns from the labels and the
    student; then a fresh student learns from that teacher. Where the helped teacher is no better on the validation
    split, the first one teaches, and the notes say so.

    Raises:
        ConfigurationError: the teacher is a black box.
    """
    if not any(parameter.requires_grad for parameter in setting.teacher.parameters()):
        raise ConfigurationError(
            "distill.regime = 'reverse' trains the teacher, and this one has no weights to train: an ONNX or exported "
            "file is a black box; bring .pt weights or let the task train its own"
        )
    helper = setting.fresh_student(1)
    first = setting.learn(helper, "helper", objectives=[Hard()])
    logits = logits_of(helper, setting.examples().inputs, setting.device)
    before = _validation_accuracy(setting)
    start = {name: value.clone() for name, value in setting.teacher.state_dict().items()}
    schedule = setting.recipe.training.model_copy(
        update={
            "epochs": max(1, setting.recipe.training.epochs // 4),
            "learning_rate": setting.recipe.training.learning_rate / 3,
        }
    )
    helped = setting.learn(
        setting.teacher,
        "teacher, helped",
        teacher_logits=logits,
        objectives=of_responses(setting.recipe.objectives),
        shape=setting.native,
        schedule=schedule,
    )
    paid = helped.validation_accuracy > before
    if not paid:
        setting.teacher.load_state_dict(start)
    student = setting.fresh_student()
    trained = setting.learn(student, "student", teacher_logits=setting.teacher_logits())
    setting.teacher.load_state_dict(start)
    notes = {
        "teacher_val_accuracy_before": before,
        "teacher_val_accuracy_helped": helped.validation_accuracy,
        "help_paid": paid,
    }
    return Outcome(student, trained, first.steps + helped.steps + trained.steps, dict(notes))


def _validation_accuracy(setting: Setting) -> float:
    labels = torch.from_numpy(setting.data.validation.labels)
    return float(correct(setting.teacher_logits(setting.data.validation), labels).float().mean())
