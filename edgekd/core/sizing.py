"""When to stop growing a student: once a larger one is no better by more than its noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PATIENCE = 2
"""Sizes in a row that may fail to be better before growing stops."""

NOISE_ERRORS = 1.0
"""A gain counts when it is more than so many standard errors of the paired difference."""


@dataclass(frozen=True)
class Trial:
    """A trained size: its name and, per validation input in order, whether it was right."""

    name: str
    right: tuple[bool, ...]

    @property
    def accuracy(self) -> float:
        """Share of the validation inputs that were right."""
        return sum(self.right) / len(self.right)


@dataclass(frozen=True)
class Choice:
    """`best` is an index into the trials; `stop` says whether to stop growing; `table` is accuracy by name."""

    best: int
    stop: bool
    reason: str
    table: dict[str, float]


def gain_and_noise(smaller: Trial, larger: Trial) -> tuple[float, float]:
    """Gain in accuracy and the standard error of that paired difference (McNemar 1947: from the discordant pairs)."""
    pairs = list(zip(smaller.right, larger.right, strict=True))
    won = sum(after and not before for before, after in pairs)
    lost = sum(before and not after for before, after in pairs)
    count = len(pairs)
    gain = (won - lost) / count
    return gain, math.sqrt(max(won + lost - (won - lost) ** 2 / count, 0.0)) / count


def choose(trials: Sequence[Trial]) -> Choice:
    """The best of the sizes tried so far, smallest first, and whether to try a larger one.

    A larger size replaces the best only where it gains more than its noise; `PATIENCE` failures in a row stop.
    """
    best, failures, reason = 0, 0, "the smallest that fits"
    for index in range(1, len(trials)):
        gain, noise = gain_and_noise(trials[best], trials[index])
        if gain > NOISE_ERRORS * noise:
            reason = f"gains {gain:+.4f} over {trials[best].name} (noise {noise:.4f})"
            best, failures = index, 0
        else:
            failures += 1
    return Choice(best, failures >= PATIENCE, reason, {trial.name: trial.accuracy for trial in trials})


def most_worthwhile(sizes: Sequence[int], trials: Sequence[Trial]) -> int | None:
    """How large a student is worth its cost: as large as the next size after those that were tried and rose.

    Where growing stopped, that is the first size that was no better; where sizes were left untried, the first of
    those. None where all were tried and rose: then the budget ends them, not the accuracy.

    Args:
        sizes: all of them, smallest first (multiply-accumulates).
        trials: of the first few.
    """
    choice = choose(trials)
    beyond = choice.best + 1 if choice.stop else len(trials)
    return sizes[beyond] if beyond < len(sizes) else None
