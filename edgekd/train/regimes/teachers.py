"""More than one teacher: ensembles, a chain through an assistant, and the small one that helps the large one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgekd.errors import ConfigurationError
from edgekd.records import Hard, MultiTeacher
from edgekd.tasks import Outputs
from edgekd.train.additions import Additions
from edgekd.train.examples import examples_of, labels_of, logits_of
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
    combined = combine(everyone, labels_of(setting.data.train), options.combine, setting.outputs)
    student = setting.fresh_student()
    trained = setting.learn(student, "student", teacher_logits=combined)
    notes = {"teachers": options.teachers, "combine": options.combine}
    return Outcome(student, trained, trained.steps, dict(notes))


def combine(everyone: list[Tensor], labels: Tensor, how: MultiTeacher | str, outputs: Outputs = "classes") -> Tensor:
    """Several teachers' logits (N, K) as one teacher's: the logarithm of the weighted mean of their probabilities.

    Independent labels are weighted each on their own, as classes of two sides. Values can only be averaged.

    Args:
        everyone: logits of each teacher.
        labels: (N,) with -1 where there is none; of independent labels (N, K), NaN where there is none.
        how: `mean`, `confidence` or `per_sample`, as `MultiTeacher` says.
        outputs: what the outputs are.

    Raises:
        ConfigurationError: values by another way than the mean.
    """
    if outputs == "regression":
        if how != "mean":
            raise ConfigurationError(
                f"distill.multi_teacher.combine = {how!r} weighs teachers by their probabilities, and values have "
                "none: use 'mean'"
            )
        return torch.stack(everyone).mean(0)
    if outputs == "multi_label":
        sides = [torch.stack((-logits, torch.zeros_like(logits)), 2).flatten(0, 1) for logits in everyone]
        known = torch.where(labels.isnan(), -1, labels.nan_to_num()).long().flatten()
        both = combine(sides, known, how).view(*labels.shape, 2)
        return both[..., 1] - both[..., 0]
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
    # The assistant sees what the student sees; the task's own teacher no longer speaks.
    inputs = setting.examples().inputs
    logits = logits_of(assistant, inputs, setting.device)
    additions = Additions(features=setting.features(assistant, inputs))
    trained = setting.learn(student, "student", teacher_logits=logits, additions=additions)
    notes = {
        "assistant_parameters": sum(parameter.numel() for parameter in assistant.parameters()),
        "assistant_val_accuracy": setting.metric.of_score(first.validation_accuracy),
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
    before = setting.metric.score(setting.teacher_logits(setting.data.validation), setting.validation.labels)
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
        "teacher_val_accuracy_before": setting.metric.of_score(before),
        "teacher_val_accuracy_helped": setting.metric.of_score(helped.validation_accuracy),
        "help_paid": paid,
    }
    return Outcome(student, trained, first.steps + helped.steps + trained.steps, dict(notes))
