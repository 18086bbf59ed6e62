"""Learning from the teacher's outputs."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from edgekd.records import Dist, Dkd, Hinton, LogitStandardization
from edgekd.train.objectives.signals import UNLABELLED, Signals


def hinton(signals: Signals, objective: Hinton) -> Tensor:
    """Soft targets at a temperature (Hinton, Vinyals, Dean 2015, arXiv:1503.02531).

    T**2 * mean over the batch of KL(softmax(t / T) || softmax(s / T)); s and t of shape (B, K). The factor keeps
    the gradient's size independent of T. Of independent labels: the same for each label's two sides, mean over K.
    Of values, which have no temperature: mean squared difference.
    """
    student, teacher, temperature = signals.student_logits, signals.teacher(), objective.temperature
    if signals.outputs == "regression":
        return functional.mse_loss(student, teacher)
    if signals.outputs == "multi_label":
        sides = torch.stack((teacher, -teacher), -1) / temperature, torch.stack((student, -student), -1) / temperature
        terms = functional.logsigmoid(sides[0]).exp() * (
            functional.logsigmoid(sides[0]) - functional.logsigmoid(sides[1])
        )
        return temperature**2 * terms.sum(-1).mean()
    return _soft_targets(student, teacher, temperature)


def logit_standardization(signals: Signals, objective: LogitStandardization) -> Tensor:
    """Soft targets of standardised logits (Sun et al. 2024, arXiv:2403.01427, equation 13).

    T**2 * mean over the batch of KL(softmax(z(t) / T) || softmax(z(s) / T)), where z takes each row's mean away and
    divides by its standard deviation; s and t of shape (B, K).
    """
    return _soft_targets(_standardized(signals.student_logits), _standardized(signals.teacher()), objective.temperature)


def dkd(signals: Signals, objective: Dkd) -> Tensor:
    """Decoupled knowledge distillation (Zhao et al. 2022, arXiv:2203.08679, equation 7).

    T**2 * mean over the batch of alpha KL(b_t || b_s) + beta KL(q_t || q_s): b is the pair (p_y, 1 - p_y) of
    softmax(. / T) for the label y, q the softmax over the K - 1 other classes. s and t of shape (B, K), K >= 2. Where
    an input has no label, y is the teacher's choice.
    """
    teacher = signals.teacher() / objective.temperature
    student = signals.student_logits / objective.temperature
    target = torch.where(signals.labels == UNLABELLED, teacher.argmax(1), signals.labels)[:, None]
    others = torch.ones_like(student, dtype=torch.bool).scatter(1, target, False)

    def parts(logits: Tensor) -> tuple[Tensor, Tensor]:
        rest = logits[others].view(len(logits), -1)
        pair = torch.cat((logits.gather(1, target), rest.logsumexp(1, keepdim=True)), 1)
        return pair.log_softmax(1), rest.log_softmax(1)

    (student_pair, student_rest), (teacher_pair, teacher_rest) = parts(student), parts(teacher)
    target_term = functional.kl_div(student_pair, teacher_pair, reduction="batchmean", log_target=True)
    other_term = functional.kl_div(student_rest, teacher_rest, reduction="batchmean", log_target=True)
    return objective.temperature**2 * (objective.alpha * target_term + objective.beta * other_term)


def dist(signals: Signals, objective: Dist) -> Tensor:
    """Relations instead of values (DIST: Huang et al. 2022, arXiv:2205.10536, equations 8 to 10).

    T**2 * (beta (1 - mean over inputs of pearson(p_s, p_t)) + gamma (1 - mean over classes of pearson(p_s', p_t')))
    of p = softmax(. / T), s and t of shape (B, K).
    """
    student = (signals.student_logits / objective.temperature).softmax(1)
    teacher = (signals.teacher() / objective.temperature).softmax(1)
    between_classes = 1 - _correlation(student, teacher).mean()
    within_class = 1 - _correlation(student.T, teacher.T).mean()
    return objective.temperature**2 * (objective.beta * between_classes + objective.gamma * within_class)


def _soft_targets(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def _standardized(logits: Tensor) -> Tensor:
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + 1e-7)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's coefficient of each row of (R, M) with the same row of the other: (R,)."""
    return functional.cosine_similarity(
        first - first.mean(1, keepdim=True), second - second.mean(1, keepdim=True), dim=1, eps=1e-8
    )
