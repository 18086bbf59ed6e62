"""Against an opponent: attacked inputs, or a discriminator between teacher and student."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from edgekd.nn.evaluation import evaluating
from edgekd.records import Adversarial, Objective
from edgekd.train.additions import Additions
from edgekd.train.examples import correct
from edgekd.train.objectives import Loss
from edgekd.train.objectives.signals import Signals
from edgekd.train.regimes.setting import Note, Outcome, Setting

ATTACK_BATCH = 256


def adversarial(setting: Setting) -> Outcome:
    """Robust distillation (arXiv:1905.09747) or a discriminator of logits (arXiv:1709.00513).

    Raises:
        ConfigurationError: the outputs are no classes.
    """
    setting.require_classes("distill.regime = 'adversarial'")
    options = setting.recipe.adversarial
    student, logits = setting.fresh_student(), setting.teacher_logits()
    if options.form == "discriminator":
        loss = DiscriminatedLoss(setting.recipe.objectives, logits.shape[1], options.discriminator_weight, setting.seed)
        seen = torch.from_numpy(np.ascontiguousarray(setting.data.train.inputs))
        additions = Additions(features=setting.features(setting.teacher, seen))
        trained = setting.learn_from(student, "student", setting.examples(logits), loss, additions=additions)
        return Outcome(student, trained, trained.steps, {"form": options.form})

    def attacked(model: nn.Module, inputs: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
        # Where the teacher's targets are the lesson, they are also what the attack moves away from.
        target = labels if teacher is None else teacher.argmax(1)
        return attack(model, inputs, target, options.epsilon, options.attack_steps)

    trained = setting.learn(student, "student", teacher_logits=logits, additions=Additions(change_inputs=attacked))
    robust = robust_accuracy(student, setting.validation.inputs, setting.validation.labels, options, setting.device)
    notes: dict[str, Note] = {"form": options.form, "epsilon": options.epsilon, "val_robust_accuracy": robust}
    return Outcome(student, trained, trained.steps, notes)


def attack(model: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float, steps: int) -> Tensor:
    """Projected gradient descent (Madry et al. 2018, arXiv:1706.06083); with one step the fast gradient sign method.

    Args:
        model: its weights do not change; batch statistics are those of its current mode.
        inputs: (B, C, H, W).
        labels: (B,) which the attack moves the answers away from.
        epsilon: most by which any value is moved, in the inputs' units.
        steps: each of 2.5 epsilon / steps, at most epsilon.

    Returns:
        Attacked inputs, from a start drawn inside the bound where there is more than one step.
    """
    moved = torch.zeros_like(inputs)
    if steps > 1:
        moved.uniform_(-epsilon, epsilon)
    # In evaluation mode the attack leaves no trace in the running statistics.
    with evaluating(model):
        for _ in range(steps):
            moved.requires_grad_()
            loss = functional.cross_entropy(model(inputs + moved), labels)
            (gradient,) = torch.autograd.grad(loss, moved)
            moved = (moved.detach() + min(epsilon, 2.5 * epsilon / steps) * gradient.sign()).clamp(-epsilon, epsilon)
    return (inputs + moved).detach()


def robust_accuracy(
    model: nn.Module, inputs: Tensor, labels: Tensor, options: Adversarial, device: torch.device
) -> float:
    """Share of inputs answered rightly under an attack of `evaluation_steps` steps: an upper bound on robustness."""
    torch.manual_seed(0)
    model.to(device).eval()
    right = [
        correct(model(attack(model, x.to(device), y.to(device), options.epsilon, options.evaluation_steps)).cpu(), y)
        for x, y in zip(torch.split(inputs, ATTACK_BATCH), torch.split(labels, ATTACK_BATCH), strict=True)
    ]
    return float(torch.cat(right).float().mean())


class DiscriminatedLoss(Loss):
    """The recipe's terms, plus `weight` times how well a discriminator sees through the student's logits.

    The discriminator, two dense layers on standardised logits, learns one step for each batch. It is not part of
    checkpoints: a run with it is not resumed.
    """

    resumable = False

    def __init__(self, objectives: Sequence[Objective], classes: int, weight: float, seed: int) -> None:
        super().__init__(objectives)
        torch.manual_seed(seed)
        self._weight = weight
        self._discriminator = nn.Sequential(nn.Linear(classes, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
        self._optimizer = torch.optim.Adam(self._discriminator.parameters(), lr=1e-3)

    def __call__(self, signals: Signals, progress: float = 0.0) -> Tensor:
        """The scalar loss of a batch; the discriminator has learnt from it before."""
        student, teacher = (functional.layer_norm(x, x.shape[1:]) for x in (signals.student_logits, signals.teacher()))
        judge = self._discriminator.to(student.device)
        told = functional.binary_cross_entropy_with_logits
        real, fake = judge(teacher), judge(student.detach())
        self._optimizer.zero_grad()
        (told(real, torch.ones_like(real)) + told(fake, torch.zeros_like(fake))).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        judge.requires_grad_(False)
        passed = judge(student)
        judge.requires_grad_(True)
        return super().__call__(signals, progress) + self._weight * told(passed, torch.ones_like(passed))
