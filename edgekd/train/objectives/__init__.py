"""KD objectives by kind. Adding one: a function in a file of its family, and a line in `OBJECTIVES`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from torch import Tensor

from edgekd.errors import BuildError, ConfigurationError
from edgekd.records import Objective
from edgekd.train.objectives.hard import hard
from edgekd.train.objectives.response import hinton
from edgekd.train.objectives.signals import Signals

Term = Callable[[Signals, Objective], Tensor]

OBJECTIVES: dict[str, Term] = {"hard": hard, "hinton": hinton}
NEEDS_TEACHER = frozenset({"hinton"})


class Loss:
    """The weighted sum of a recipe's objectives, averaged over a batch.

    Raises:
        ConfigurationError: a kind that does not exist, with the nearest that does; or no objective with weight.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        unknown = [objective.kind for objective in objectives if objective.kind not in OBJECTIVES]
        if unknown:
            raise ConfigurationError("\n".join(_unknown(kind) for kind in unknown))
        self.objectives = [objective for objective in objectives if objective.weight > 0]
        if not self.objectives:
            raise ConfigurationError("distill.objectives: at least one objective needs a weight above 0")

    @property
    def needs_teacher(self) -> bool:
        """Whether any term reads the teacher's logits."""
        return any(objective.kind in NEEDS_TEACHER for objective in self.objectives)

    def __call__(self, signals: Signals) -> Tensor:
        """The scalar loss of a batch."""
        terms = [objective.weight * OBJECTIVES[objective.kind](signals, objective) for objective in self.objectives]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def culprit(self, signals: Signals) -> str:
        """The name of the first term that is not finite for a batch, or of the student's own logits."""
        if not signals.student_logits.isfinite().all():
            return "the student's logits"
        for objective in self.objectives:
            if not OBJECTIVES[objective.kind](signals, objective).isfinite():
                return f"the term {objective.kind!r}"
        return "the weighted sum"


def nan_error(loss: Loss, signals: Signals, where: str, learning_rate: float) -> BuildError:
    """The error for a loss that stopped being a number, naming the term at fault."""
    return BuildError(
        f"the loss is not a number at {where}: {loss.culprit(signals)} is NaN or infinite; learning rate there "
        f"{learning_rate:.3g}: try a tenth of it, or check the data's range"
    )


def _unknown(kind: str) -> str:
    nearest = difflib.get_close_matches(kind, OBJECTIVES, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"distill.objectives: there is no kind {kind!r}: {hint}there are {', '.join(sorted(OBJECTIVES))}"
