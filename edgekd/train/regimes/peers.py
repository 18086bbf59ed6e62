"""No teacher: a student learns from itself, or from others like it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from edgekd.errors import ConfigurationError
from edgekd.records import Hard, Hinton, Objective, Online
from edgekd.train.additions import Additions
from edgekd.train.examples import logits_of
from edgekd.train.objectives import OBJECTIVES, Loss
from edgekd.train.objectives.signals import Signals
from edgekd.train.regimes.setting import Outcome, Setting, of_responses


def self_distillation(setting: Setting) -> Outcome:
    """Born-again generations (arXiv:1805.04770), or the run's own average as the teacher (arXiv:1703.01780).

    Terms on features are of the generation before; the average's layers teach none.

    Raises:
        ConfigurationError: the average is to teach, but weights are not averaged.
    """
    options = setting.recipe.self_distillation
    if options.source == "average":
        return _from_its_average(setting, of_responses(setting.recipe.objectives))
    inputs = setting.examples().inputs
    steps, logits, accuracies, additions = 0, None, [], Additions()
    for generation in range(options.generations):
        student = setting.fresh_student(generation)
        trained = setting.learn(
            student,
            f"generation {generation + 1}",
            teacher_logits=logits,
            objectives=[Hard()] if logits is None else None,
            additions=additions,
        )
        logits = logits_of(student, inputs, setting.device)
        additions = Additions(features=setting.features(student, inputs))
        steps += trained.steps
        accuracies.append(setting.metric.of_score(trained.validation_accuracy))
    notes = {f"generation_{index + 1}_val_accuracy": accuracy for index, accuracy in enumerate(accuracies)}
    return Outcome(student, trained, steps, dict(notes))


def _from_its_average(setting: Setting, objectives: list[Objective]) -> Outcome:
    if setting.recipe.training.ema_decay == 0:
        raise ConfigurationError(
            "distill.self_distillation.source = 'average' needs distill.training.ema_decay above 0: there is no average"
        )
    student = setting.fresh_student()
    trained = setting.learn(student, "student", objectives=objectives, additions=Additions(own_average_teaches=True))
    return Outcome(student, trained, trained.steps)


class Peers(nn.Module):
    """Students side by side. In training their logits in a row, (B, P * K); in evaluation the first one's, (B, K)."""

    def __init__(self, peers: list[nn.Module]) -> None:
        super().__init__()
        self.peers = nn.ModuleList(peers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of all peers while training, else of the first."""
        if self.training:
            return torch.cat([peer(inputs) for peer in self.peers], 1)
        logits: Tensor = self.peers[0](inputs)
        return logits


class MutualLoss(Loss):
    """Each peer: the labels, plus `weight` times the mean of its soft-target terms from the others.

    (Deep mutual learning: Zhang et al. 2018, arXiv:1706.00384, equations 4 to 6.)
    """

    def __init__(self, options: Online) -> None:
        super().__init__([Hard(), Hinton(weight=options.weight, temperature=options.temperature)])
        self._options = options

    def __call__(self, signals: Signals, progress: float = 0.0) -> Tensor:
        """The sum over the peers; student_logits are (B, P * K)."""
        peers = signals.student_logits.chunk(self._options.peers, 1)
        total = peers[0].new_zeros(())
        for index, own in enumerate(peers):
            mine = replace(signals, student_logits=own)
            total = total + OBJECTIVES["hard"](mine, self.objectives[0])
            others = [other.detach() for position, other in enumerate(peers) if position != index]
            for other in others:
                told = replace(mine, teacher_logits=other)
                total = total + self._options.weight / len(others) * OBJECTIVES["hinton"](told, self.objectives[1])
        return total


def online(setting: Setting) -> Outcome:
    """Peers learn together; the first one is kept, whatever the others became, so that nothing is chosen."""
    options = setting.recipe.online
    peers = Peers([setting.fresh_student(index) for index in range(options.peers)])
    trained = setting.learn_from(peers, "peers", setting.examples(), MutualLoss(options))
    return Outcome(peers.peers[0].eval(), trained, trained.steps * options.peers, {"peers": options.peers})
