"""What short runs say of accuracy, averaged over candidates: a Gaussian process from choices to scores.

A single short run is a noisy score, and candidates of one budget lie within that noise of one another. What two
candidates have in common is seen several times: a regression on all choices averages the noise away, and says something
of candidates that no run has tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from edgekd.core.nonnegative import Array
from edgekd.records import Candidate

TREND, BEND, NOISE = 0.5, 0.7, 0.5
"""Standard deviations of a choice's straight effect, of bends, and of a run's luck, in those of the scores."""

REACH = 1.0
"""How far a bend reaches, where a choice ranges from -1 to 1."""


class Surrogate:
    """Predicts scores of candidates from those that were scored (Rasmussen and Williams 2006, eq. 2.25).

    Args:
        dimensions: allowed values by choice name.
        scored: candidates with their scores, at least two.
    """

    def __init__(self, dimensions: Mapping[str, Sequence[int]], scored: Sequence[tuple[Candidate, float]]) -> None:
        self._dimensions = dimensions
        scores = np.array([score for _, score in scored])
        sizes = np.log([max(candidate.macs, 1) for candidate, _ in scored])
        self._size, self._size_spread = float(sizes.mean()), float(sizes.std()) + 0.3
        self._mean, self._spread = float(scores.mean()), float(scores.std()) + 1e-6
        self._at = np.array([self._coordinates(candidate) for candidate, _ in scored])
        covariance = self._covariance(self._at) + NOISE**2 * np.eye(len(scores))
        self._weights = np.linalg.solve(covariance, (scores - self._mean) / self._spread)

    def expected(self, candidates: Sequence[Candidate]) -> Array:
        """The expected scores of any candidates of the space, (candidates,); scored ones weigh in with their own."""
        there = np.array([self._coordinates(candidate) for candidate in candidates])
        return np.asarray(self._mean + self._spread * (self._covariance(there) @ self._weights))

    def _covariance(self, there: Array) -> Array:
        distance = ((there[:, None] - self._at[None]) ** 2).sum(axis=-1)
        bend = np.exp(-distance / (2 * REACH**2))
        return np.asarray(TREND**2 * there @ self._at.T + BEND**2 * bend)

    def _coordinates(self, candidate: Candidate) -> Array:
        size = (math.log(max(candidate.macs, 1)) - self._size) / self._size_spread
        return np.array([*positions(self._dimensions, candidate), size])


def positions(dimensions: Mapping[str, Sequence[int]], candidate: Candidate) -> list[float]:
    """Each choice's place among its allowed values, from -1 (the cheapest) to 1."""
    return [
        2 * list(values).index(candidate.choices[name]) / (len(values) - 1) - 1 if len(values) > 1 else 0.0
        for name, values in dimensions.items()
    ]
