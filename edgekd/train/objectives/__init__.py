"""KD objectives by kind. Adding one: a record of its parameters, a function in a file of its family, a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from edgekd.errors import BuildError, ConfigurationError
from edgekd.records import Objective
from edgekd.tasks import Outputs
from edgekd.train.objectives.feature import attention, fitnet
from edgekd.train.objectives.hard import hard
from edgekd.train.objectives.relational import relational
from edgekd.train.objectives.response import dist, dkd, hinton, logit_standardization
from edgekd.train.objectives.signals import Signals

Term = Callable[[Signals, Any], Tensor]

OBJECTIVES: dict[str, Term] = {
    "hard": hard,
    "hinton": hinton,
    "dkd": dkd,
    "dist": dist,
    "logit_standardization": logit_standardization,
    "fitnet": fitnet,
    "attention": attention,
    "relational": relational,
}


class Loss:
    """The weighted sum of a recipe's objectives, averaged over a batch.

    Raises:
        ConfigurationError: no objective has weight, or none teaches the outputs.
    """

    resumable = True

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = [objective for objective in objectives if objective.ever_counts]
        if not self.objectives:
            raise ConfigurationError("distill.objectives: at least one objective needs a weight above 0")
        if all(objective.needs_features for objective in self.objectives):
            raise ConfigurationError(
                "distill.objectives: terms on features alone leave the outputs untaught: add 'hard', or a response "
                "objective such as 'hinton'"
            )

    @property
    def needs_teacher(self) -> bool:
        """Whether any term reads the teacher's logits."""
        return any(objective.needs_teacher and not objective.needs_features for objective in self.objectives)

    @property
    def featured(self) -> list[Objective]:
        """The terms that read layers inside the teacher."""
        return [objective for objective in self.objectives if objective.needs_features]

    def require(self, outputs: Outputs) -> None:
        """Refuse what has no meaning for outputs of this kind.

        Raises:
            ConfigurationError: with every objective at fault, and what to use instead.
        """
        require_objectives(self.objectives, outputs)

    def __call__(self, signals: Signals, progress: float = 0.0) -> Tensor:
        """The scalar loss of a batch, when a share `progress` (0 to 1) of the planned steps is done."""
        total: Tensor | None = None
        for objective in self.objectives:
            term = objective.weight_at(progress) * OBJECTIVES[objective.kind](signals, objective)
            total = term if total is None else total + term
        assert total is not None
        return total

    def culprit(self, signals: Signals) -> str:
        """The name of the first term that is not finite for a batch, or of the student's own logits."""
        if not signals.student_logits.isfinite().all():
            return "the student's logits"
        for objective in self.objectives:
            if not OBJECTIVES[objective.kind](signals, objective).isfinite():
                return f"the term {objective.kind!r}"
        return "the weighted sum"


OUTPUTS_IN_WORDS: dict[Outputs, str] = {
    "classes": "one of several classes",
    "multi_label": "independent labels",
    "regression": "values",
}


def require_objectives(objectives: Sequence[Objective], outputs: Outputs) -> None:
    """Refuse objectives that have no meaning for outputs of this kind.

    Raises:
        ConfigurationError: with every objective at fault, and what to use instead.
    """
    words, problems = OUTPUTS_IN_WORDS[outputs], []
    if outputs != "classes":
        problems = [
            f"distill.objectives: {objective.kind!r} compares distributions over classes, but the outputs are {words}: "
            f"use 'hard', 'hinton' or a feature objective"
            for objective in objectives
            if objective.classes_only
        ]
    if outputs == "regression" and any(getattr(objective, "label_smoothing", 0) for objective in objectives):
        problems.append("distill.objectives: 'hard' with label_smoothing has no meaning for values: leave it at 0")
    if problems:
        raise ConfigurationError("\n".join(problems))


def nan_error(loss: Loss, signals: Signals, where: str, learning_rate: float) -> BuildError:
    """The error for a loss that stopped being a number, naming the term at fault."""
    return BuildError(
        f"the loss is not a number at {where}: {loss.culprit(signals)} is NaN or infinite; learning rate there "
        f"{learning_rate:.3g}: try a tenth of it, or check the data's range"
    )
