"""Searching a student space: candidates that meet every limit, bred from those that learn best (ask and tell).

The search proposes and listens; it never trains. Whoever evaluates (short distillation runs today, a weight-sharing
network tomorrow) tells it a score between 0 and 1. The same seed and the same scores give the same candidates.

The first candidates lie evenly over the sizes that fit, smallest first. Later ones are children of the best: each
choice from either parent, then one or more moved by a step (regularised evolution without ageing: Real et al. 2019,
arXiv:1802.01548). A child that breaks any limit of the budget at the unfavourable end of its predictions is not born.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.core.spaces import Choices
from edgekd.records import Candidate, Training

Key = tuple[tuple[str, int], ...]
MUTATION_RATE = 0.3
TRIES_FOR_ONE = 60
"""Draws after which no further child is looked for: the neighbourhood of the parents is used up."""

HALVING = 3
"""Of each rung of successive halving one in so many goes on, with so many times the epochs (arXiv:1603.06560)."""

LEAST_EPOCHS = 4


@dataclass(frozen=True)
class Scored:
    """An evaluated candidate."""

    candidate: Candidate
    score: float


class Search:
    """Ask for candidates, tell their scores.

    Args:
        dimensions: allowed values by choice name, cheapest first; a space's own, or a user's.
        cost: the candidate of a choice, with every cost that can be predicted.
        fits: whether a candidate meets every limit.
        seed: of all that is random.
        fixed: choices held fixed.
    """

    def __init__(
        self,
        dimensions: Mapping[str, Sequence[int]],
        cost: Callable[[Choices], Candidate],
        fits: Callable[[Candidate], bool],
        seed: int,
        fixed: Mapping[str, int] | None = None,
    ) -> None:
        held = fixed or {}
        self.dimensions = {
            name: (held[name],) if name in held else tuple(values) for name, values in dimensions.items()
        }
        self._cost, self._fits = cost, fits
        self._random = np.random.default_rng(seed)
        self._asked: set[Key] = set()
        self._seen: dict[Key, Candidate | None] = {}
        self.scored: list[Scored] = []

    def ask(self, count: int) -> tuple[Candidate, ...]:
        """Up to `count` candidates never asked for before, fewest MACs first; fewer where no more are found."""
        found = self._children(count) if self.scored else self._spread(count)
        for candidate in found:
            self._asked.add(_key(candidate.choices))
        return tuple(sorted(found, key=_size))

    def tell(self, candidate: Candidate, score: float) -> None:
        """How well a candidate did, the higher the better."""
        self.scored.append(Scored(candidate, score))

    def best(self, count: int) -> tuple[Scored, ...]:
        """The best so far, best first; of equal ones the smaller."""
        return tuple(sorted(self.scored, key=lambda one: (-one.score, *_size(one.candidate)))[:count])

    @property
    def considered(self) -> int:
        """How many different choices were costed so far."""
        return len(self._seen)

    def _feasible(self, choices: Choices) -> Candidate | None:
        key = _key(choices)
        if key not in self._seen:
            candidate = self._cost(choices)
            self._seen[key] = candidate if self._fits(candidate) else None
        return self._seen[key]

    def _spread(self, count: int) -> list[Candidate]:
        """Feasible random candidates, evenly spaced in log MACs from the smallest to the largest."""
        pool: dict[Key, Candidate] = {}
        for _ in range(TRIES_FOR_ONE * count):
            candidate = self._feasible(self._random_choices())
            if candidate is not None and _key(candidate.choices) not in self._asked:
                pool[_key(candidate.choices)] = candidate
        ordered = sorted(pool.values(), key=_size)
        if len(ordered) <= count:
            return ordered
        sizes = np.log([candidate.macs for candidate in ordered])
        chosen: list[int] = []
        for target in np.linspace(sizes[0], sizes[-1], count):
            free = [index for index in range(len(ordered)) if index not in chosen]
            chosen.append(min(free, key=lambda index: abs(sizes[index] - target)))
        return [ordered[index] for index in sorted(chosen)]

    def _children(self, count: int) -> list[Candidate]:
        parents = [one.candidate.choices for one in self.best(max(2, math.ceil(len(self.scored) / HALVING)))]
        born: dict[Key, Candidate] = {}
        for _ in range(TRIES_FOR_ONE * count):
            if len(born) == count:
                break
            first, second = (parents[int(self._random.integers(len(parents)))] for _ in range(2))
            child = self._feasible(self._child(first, second))
            if child is not None and _key(child.choices) not in self._asked:
                born[_key(child.choices)] = child
        return list(born.values())

    def _random_choices(self) -> dict[str, int]:
        return {name: values[int(self._random.integers(len(values)))] for name, values in self.dimensions.items()}

    def _child(self, first: Choices, second: Choices) -> dict[str, int]:
        child = {name: (first if self._random.random() < 0.5 else second)[name] for name in self.dimensions}
        free = [name for name, values in self.dimensions.items() if len(values) > 1]
        moved = [name for name in free if self._random.random() < MUTATION_RATE]
        if not moved and free:
            moved = [free[int(self._random.integers(len(free)))]]
        for name in moved:
            values = self.dimensions[name]
            at = values.index(child[name]) + int(self._random.choice((-1, 1)))
            child[name] = values[min(max(at, 0), len(values) - 1)]
        return child


def halving_schedules(full: Training, rungs: int) -> tuple[Training, ...]:
    """The schedules of successive halving, shortest first; the last is the whole one.

    Each rung has a third of the next one's epochs, and at least four. A short run also stops early, after a third of
    its epochs without a better validation score, and keeps its last weights: an average over so few steps would still
    hold the first ones.
    """
    schedules = []
    for rung in range(rungs):
        epochs = max(min(LEAST_EPOCHS, full.epochs), round(full.epochs / HALVING ** (rungs - 1 - rung)))
        if epochs >= full.epochs:
            schedules.append(full)
            continue
        patience = max(2, math.ceil(epochs / HALVING))
        schedules.append(full.model_copy(update={"epochs": epochs, "patience": patience, "ema_decay": 0.0}))
    return tuple(schedules)


def survivors(count: int) -> int:
    """How many of a rung of `count` go on."""
    return max(1, math.ceil(count / HALVING))


def _key(choices: Choices) -> Key:
    return tuple(sorted(choices.items()))


def _size(candidate: Candidate) -> tuple[int, int, str]:
    return candidate.macs, candidate.parameters, candidate.label
