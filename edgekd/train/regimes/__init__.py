"""Regimes by name: who teaches whom, and from what. Adding one: a function, options in its record, a line here."""

from __future__ import annotations

from collections.abc import Callable

from edgekd.records import Distillation, Regime
from edgekd.train.regimes.adversarial import adversarial
from edgekd.train.regimes.continual import continual
from edgekd.train.regimes.data_free import data_free
from edgekd.train.regimes.multi_task import multi_task
from edgekd.train.regimes.offline import curriculum, offline
from edgekd.train.regimes.peers import online, self_distillation
from edgekd.train.regimes.setting import Note, Outcome, Setting, for_steps
from edgekd.train.regimes.teachers import multi_teacher, progressive, reverse
from edgekd.train.regimes.unlabelled import hide_labels, semi_supervised

__all__ = [
    "REGIME_FUNCTIONS",
    "Note",
    "Outcome",
    "Setting",
    "for_steps",
    "hide_labels",
    "why_without_features",
]

REGIME_FUNCTIONS: dict[Regime, Callable[[Setting], Outcome]] = {
    "offline": offline,
    "self": self_distillation,
    "online": online,
    "multi_teacher": multi_teacher,
    "progressive": progressive,
    "curriculum": curriculum,
    "semi_supervised": semi_supervised,
    "data_free": data_free,
    "adversarial": adversarial,
    "continual": continual,
    "reverse": reverse,
    "multi_task": multi_task,
}


def why_without_features(recipe: Distillation) -> str | None:
    """Why the recipe's regime leaves out terms on layers inside a teacher; None where it carries them."""
    if recipe.regime == "online":
        return "peers change with every step, and none of them is a teacher whose layers could be followed"
    if recipe.regime == "self" and recipe.self_distillation.source == "average":
        return "the student's own average changes with every step"
    if recipe.regime == "data_free" and recipe.data_free.source == "generator":
        return "every batch is made anew"
    return None
