"""Gaussian processes on what a mean function leaves of measured costs, in the logarithm (numpy only)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.core.nonnegative import Array

NOISES = (0.03, 0.05, 0.08, 0.12)
"""Standard deviations of measurement noise considered, in the logarithm of the cost."""


@dataclass(frozen=True)
class Grid:
    """The hyperparameters considered: lengths and amplitudes of what bends, amplitudes of what only tilts."""

    lengths: Sequence[float]
    amplitudes: Sequence[float]
    tilts: Sequence[float] = (0.0,)


@dataclass(frozen=True)
class Process:
    """A posterior mean: a sum of Matern 5/2 kernels around the measured rows, and a tilt."""

    at: Array
    bends: dict[float, Array]
    tilt: Array

    def __call__(self, there: Array) -> Array:
        """The mean at rows of coordinates, (rows,)."""
        found, apart = there @ self.tilt, distances(there, self.at)
        for length, weights in self.bends.items():
            found = found + matern(apart, length) @ weights
        return np.asarray(found)

    def steepest(self) -> float:
        """A bound on the slope of what bends, in any direction, anywhere.

        A function of norm |c| in a kernel's space has no slope above |c| times the root of the kernel's second
        derivative at 0, which is 5 / (3 length**2) for this one.
        """
        apart = distances(self.at, self.at)
        return sum(
            math.sqrt(max(float(weights @ matern(apart, length) @ weights), 0.0) * 5 / 3) / length
            for length, weights in self.bends.items()
        )


def posterior(at: Array, remainder: Array, grid: Grid) -> Process:
    """The mean of Gaussian processes over a grid of hyperparameters, each weighed by its marginal likelihood.

    Args:
        at: (rows, coordinates).
        remainder: (rows,), the logarithm of what the mean function leaves.
        grid: what to average over, with every noise of `NOISES`.
    """
    rows = len(remainder)
    apart = distances(at, at)
    kernels = {length: matern(apart, length) for length in grid.lengths}
    tilt_of = at @ at.T
    points = list(itertools.product(grid.lengths, grid.amplitudes, grid.tilts, NOISES))
    covariances = np.stack(
        [a**2 * kernels[length] + t**2 * tilt_of + noise**2 * np.eye(rows) for length, a, t, noise in points]
    )
    factors = np.linalg.cholesky(covariances)
    solved = np.linalg.solve(covariances, np.broadcast_to(remainder, (len(points), rows))[..., None])[..., 0]
    evidence = -0.5 * solved @ remainder - np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    bends = {length: np.zeros(rows) for length in grid.lengths}
    tilts = np.zeros(rows)
    for share, (length, amplitude, tilt, _), one in zip(weight, points, solved, strict=True):
        bends[length] += share * amplitude**2 * one
        tilts += share * tilt**2 * one
    return Process(at, bends, at.T @ tilts)


def distances(first: Array, second: Array) -> Array:
    """Between all rows of the one and of the other: (rows of first, rows of second)."""
    return np.asarray(np.sqrt(((first[:, None] - second[None]) ** 2).sum(axis=-1)))


def matern(apart: Array, length: float) -> Array:
    """Matern 5/2 covariance at those distances (Rasmussen and Williams 2006, eq. 4.17)."""
    scaled = math.sqrt(5.0) / length * apart
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


class LogCoordinates:
    """Logarithms of features in units of their mean, standardised; log(1 + x) for a feature that may be absent."""

    def __init__(self, features: Array) -> None:
        positive = np.where(features > 0, features, np.nan)
        present = ~np.isnan(positive).all(axis=0)
        self.unit = np.ones(features.shape[1])
        self.unit[present] = np.nanmean(positive[:, present], axis=0)
        self.may_be_absent = (features == 0).any(axis=0)
        raw = self.raw(features)
        self.centre, self.spread = raw.mean(axis=0), raw.std(axis=0) + 0.1

    def raw(self, features: Array) -> Array:
        """Without standardising: (rows, features)."""
        scaled = features / self.unit
        return np.where(self.may_be_absent, np.log1p(scaled), np.log(np.maximum(scaled, 1e-4)))

    def __call__(self, features: Array) -> Array:
        """Standardised: (rows, features)."""
        return np.asarray((self.raw(features) - self.centre) / self.spread)


Coordinates = Callable[[Array], Array]
