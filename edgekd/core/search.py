"""Searching a student space: candidates that meet every limit, bred from those that learn best (ask and tell).

The search proposes and listens; it never trains. Whoever evaluates (short distillation runs today, a weight-sharing
network tomorrow) tells it a score between 0 and 1. The same seed and the same scores give the same candidates.

The first candidates fill the budget. They begin with the largest two that a person would try, one with everything in
proportion and one with middle choices and a single one turned up; the others are of those that fit, the larger half in
MACs, as far apart in their choices as can be. Later ones are those of which a regression over all scores
(`edgekd.core.search_surrogate`) expects most, among children of the best (each choice from either parent, then one or
more moved by a step: Real et al. 2019, arXiv:1802.01548) and random candidates. What breaks any limit of the budget at
the unfavourable end of its predictions is no candidate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.core.search_surrogate import Surrogate, positions
from edgekd.core.spaces import Choices, centre_lines, compound_path
from edgekd.records import Candidate, Training

Key = tuple[tuple[str, int], ...]
MUTATION_RATE = 0.3
TRIES_FOR_ONE = 60
"""Draws for each candidate asked for."""

SHORT_SHARE = 1 / 3
"""Of the whole schedule's epochs that a short run gets. A ninth ranked watch-gestures students against their order."""

LEAST_EPOCHS = 4
PARENTS_SHARE = 1 / 3


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
        known: candidates known to fit, for where so few do that random draws find none.
    """

    def __init__(
        self,
        dimensions: Mapping[str, Sequence[int]],
        cost: Callable[[Choices], Candidate],
        fits: Callable[[Candidate], bool],
        seed: int,
        fixed: Mapping[str, int] | None = None,
        known: Sequence[Candidate] = (),
    ) -> None:
        held = fixed or {}
        self.dimensions = {
            name: (held[name],) if name in held else tuple(values) for name, values in dimensions.items()
        }
        self._cost, self._fits, self._known = cost, fits, tuple(known)
        self._random = np.random.default_rng(seed)
        self._asked: set[Key] = set()
        self._seen: dict[Key, Candidate | None] = {}
        self.scored: list[Scored] = []

    def ask(self, count: int) -> tuple[Candidate, ...]:
        """Up to `count` candidates never asked for before, fewest MACs first; fewer where no more are found."""
        found = self._promising(count) if len(self.scored) > 1 else self._spread(count)
        if not found:
            fresh = [one for one in self._known if _key(one.choices) not in self._asked and self._fits(one)]
            found = sorted(fresh, key=_size)[-count:]
        for candidate in found:
            self._asked.add(_key(candidate.choices))
        return tuple(sorted(found, key=_size))

    def tell(self, candidate: Candidate, score: float) -> None:
        """How well a candidate did, the higher the better."""
        self.scored.append(Scored(candidate, score))

    def best(self, count: int) -> tuple[Scored, ...]:
        """Those believed to be the best so far, best first; of equal ones the smaller.

        Each score is drawn towards what the scores of candidates with like choices let expect.
        """
        if len(self.scored) < 2:
            return tuple(self.scored[:count])
        believed = self._surrogate().expected([one.candidate for one in self.scored])
        order = sorted(zip(believed, self.scored, strict=True), key=lambda pair: (-pair[0], *_size(pair[1].candidate)))
        return tuple(one for _, one in order[:count])

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

    def _surrogate(self) -> Surrogate:
        return Surrogate(self.dimensions, [(one.candidate, one.score) for one in self.scored])

    def _spread(self, count: int) -> list[Candidate]:
        """Anchors, then of feasible random candidates the larger half, as far apart in their choices as can be."""
        ordered = sorted(self._drawn(count, self._random_choices), key=_size)
        anchors = self._anchors()
        fresh = [candidate for candidate in ordered if candidate not in anchors]
        pool = [*anchors, *fresh[min(len(fresh) // 2, max(len(fresh) - count, 0)) :]]
        if len(pool) <= count:
            return pool
        at = np.array([positions(self.dimensions, candidate) for candidate in pool])
        chosen = list(range(min(max(len(anchors), 1), count)))
        while len(chosen) < count:
            distance = ((at[:, None] - at[None, chosen]) ** 2).sum(axis=2).min(axis=1)
            distance[chosen] = -1.0
            chosen.append(int(np.argmax(distance)))
        return [pool[index] for index in chosen]

    def _anchors(self) -> list[Candidate]:
        """The largest feasible candidate of the compound path, and that of the centre lines."""
        found: list[Candidate] = []
        for line in (compound_path(self.dimensions), centre_lines(self.dimensions)):
            fitting = [one for choices in line if (one := self._feasible(choices)) is not None]
            fresh = [one for one in fitting if _key(one.choices) not in self._asked and one not in found]
            if fresh:
                found.append(max(fresh, key=_size))
        return found

    def _promising(self, count: int) -> list[Candidate]:
        """Of children of the best and random candidates those of which most is expected."""
        parents = [one.candidate.choices for one in self.best(max(2, math.ceil(PARENTS_SHARE * len(self.scored))))]

        def child() -> dict[str, int]:
            first, second = (parents[int(self._random.integers(len(parents)))] for _ in range(2))
            return self._child(first, second)

        pool = {_key(one.choices): one for make in (child, self._random_choices) for one in self._drawn(count, make)}
        if not pool:
            return []
        expected = self._surrogate().expected(list(pool.values()))
        order = sorted(zip(expected, pool.values(), strict=True), key=lambda pair: (-pair[0], *_size(pair[1])))
        return [candidate for _, candidate in order[:count]]

    def _drawn(self, count: int, make: Callable[[], dict[str, int]]) -> list[Candidate]:
        """Different feasible candidates never asked for before."""
        drawn: dict[Key, Candidate] = {}
        for _ in range(TRIES_FOR_ONE * max(count, 4)):
            candidate = self._feasible(make())
            if candidate is not None and _key(candidate.choices) not in self._asked:
                drawn[_key(candidate.choices)] = candidate
        return list(drawn.values())

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


def short_schedule(full: Training) -> Training:
    """The schedule of a short run: a third of the epochs, and at least four.

    It also stops early, after a third of its epochs without a better validation score, and keeps its last weights: an
    average over so few steps would still hold the first ones.
    """
    epochs = min(full.epochs, max(LEAST_EPOCHS, round(SHORT_SHARE * full.epochs)))
    if epochs == full.epochs:
        return full
    return full.model_copy(update={"epochs": epochs, "patience": max(2, math.ceil(epochs / 3)), "ema_decay": 0.0})


def _key(choices: Choices) -> Key:
    return tuple(sorted(choices.items()))


def _size(candidate: Candidate) -> tuple[int, int, str]:
    return candidate.macs, candidate.parameters, candidate.label
