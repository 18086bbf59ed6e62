"""Searching a student space, by ask and tell: of candidates that meet every limit, those that short runs speak for.

The search proposes and listens; it never trains. Whoever evaluates (short distillation runs today, a weight-sharing
network tomorrow) tells it a score between 0 and 1. The same seed and the same scores give the same candidates.

It chooses from a list: all candidates of which `edgekd.core.propose` says that they meet every limit. The first ones
fill the budget. They begin with the largest two that a person would try, one with everything in proportion and one with
middle choices and a single one turned up; the others are of the larger half in MACs, as far apart in their choices as
can be. Later ones are those of which a regression over all scores (`edgekd.core.search_surrogate`) expects most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.core.search_surrogate import Surrogate, positions
from edgekd.core.spaces import Choices, centre_lines, compound_path
from edgekd.records import Candidate, Training

Key = tuple[tuple[str, int], ...]

SHORT_SHARE = 1 / 3
"""Of the whole schedule's epochs that a short run gets. A ninth ranked watch-gestures students against their order."""

LEAST_EPOCHS = 4
DRAWN_SHARE = 1 / 2
"""Of the larger half of the candidates, how many are drawn for the first ones to be chosen from."""


@dataclass(frozen=True)
class Scored:
    """An evaluated candidate."""

    candidate: Candidate
    score: float


class Search:
    """Ask for candidates, tell their scores.

    Args:
        dimensions: allowed values by choice name, cheapest first; a space's own, or a user's.
        candidates: those to choose from: every one that fits.
        seed: of all that is random.
    """

    def __init__(self, dimensions: Mapping[str, Sequence[int]], candidates: Sequence[Candidate], seed: int) -> None:
        self.dimensions = dimensions
        self._left = {_key(one.choices): one for one in sorted(candidates, key=_size)}
        self._random = np.random.default_rng(seed)
        self._begun = False
        self.scored: list[Scored] = []

    def ask(self, count: int) -> tuple[Candidate, ...]:
        """Up to `count` candidates never asked for before, fewest MACs first; fewer where no more are left."""
        found = self._promising(count) if self._begun and len(self.scored) > 1 else self._spread(count)
        self._begun = True
        for candidate in found:
            del self._left[_key(candidate.choices)]
        return tuple(sorted(found, key=_size))

    def tell(self, candidate: Candidate, score: float) -> None:
        """How well a candidate did, the higher the better. One that was not asked for will not be asked for then."""
        self._left.pop(_key(candidate.choices), None)
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

    def _surrogate(self) -> Surrogate:
        return Surrogate(self.dimensions, [(one.candidate, one.score) for one in self.scored])

    def _spread(self, count: int) -> list[Candidate]:
        """Anchors, then of some candidates of the larger half those as far apart in their choices as can be."""
        left = list(self._left.values())
        anchors = self._anchors()
        others = [candidate for candidate in left if candidate not in anchors]
        larger = others[min(len(others) // 2, max(len(others) - count, 0)) :]
        drawn = max(round(DRAWN_SHARE * len(larger)), min(count, len(larger)))
        pool = [*anchors, *(larger[index] for index in self._random.permutation(len(larger))[:drawn])]
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
        """The largest candidate of the compound path, and that of the centre lines."""
        found: list[Candidate] = []
        for line in (compound_path(self.dimensions), centre_lines(self.dimensions)):
            fresh = [self._left[_key(one)] for one in line if _key(one) in self._left]
            fresh = [candidate for candidate in fresh if candidate not in found]
            if fresh:
                found.append(max(fresh, key=_size))
        return found

    def _promising(self, count: int) -> list[Candidate]:
        """Those of which most is expected."""
        left = list(self._left.values())
        if not left:
            return []
        expected = self._surrogate().expected(left)
        order = sorted(zip(expected, left, strict=True), key=lambda pair: (-pair[0], *_size(pair[1])))
        return [candidate for _, candidate in order[:count]]


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
