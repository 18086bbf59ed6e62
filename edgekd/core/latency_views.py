"""Ways to see a model's cost: what each learns from few measured models, positive everywhere.

- `shares`: the cost is a sum of non-negative shares, an overhead and one for each feature. The sum's level follows the
  mix: where a measured model of like shares took longer than the sum says, so does this one.
- `curved`: the same with a second share for the square root of each feature: parallel work and caches make cost grow
  slower than work.
- `bent`, `smooth`, `power`: Gaussian processes on the logarithms of the features, around the curved sum, an equal share
  of all features, and a power law. They bend freely and have little to say far from what was measured.

The first two are monotone in every feature. A sum of shares is; the factor on it, exp(c), depends on the shares s
alone, and as growing feature j moves s towards its corner e_j, d log(cost) / d log(feature j) is
s_j (1 + slope of c from s to e_j). So c is scaled down until no slope between points of the simplex, whose diameter
is sqrt(2), can reach 1 (`Process.steepest`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgekd.core.latency_process import Coordinates, Grid, LogCoordinates, posterior
from edgekd.core.nonnegative import Array, nonnegative_least_squares

Predictor = Callable[[Array], Array]
"""From (models, features) to costs, (models,)."""

Learner = Callable[[Array, Array], Predictor]
"""From features and costs of measured models to a predictor."""

BOOTSTRAP_DRAWS = 16
RIDGE = 0.1
"""Pull of the additive shares towards zero, in units of one relative squared error."""

REWEIGHTINGS = 2
"""Rounds in which measurements that lie far off (beyond 1.5 median errors) lose weight."""

MIX = Grid((0.2, 0.5, 1.0), (0.02, 0.05, 0.1, 0.2, 0.4))
SMOOTH = Grid((3.0, 6.0), (0.1, 0.2, 0.4, 0.8), (0.03, 0.1, 0.3))
BENT = Grid((1.5, 3.0, 6.0), (0.02, 0.05, 0.1, 0.2, 0.4))


def linear(features: Array) -> Array:
    """The columns of the plain sum: one for the overhead, and the features."""
    return np.column_stack([np.ones(len(features)), features])


def rooted(features: Array) -> Array:
    """The columns of the curved sum: those, and the features' square roots."""
    return np.column_stack([np.ones(len(features)), features, np.sqrt(features)])


def prices(features: Array, costs: Array, columns: Callable[[Array], Array] = linear) -> Array:
    """Non-negative price of each column, (columns,); the overhead, the first, is above zero."""
    found = additive_shares(columns(features), costs)
    found[0] = max(float(found[0]), 1e-3 * float(costs.min()))
    return found


def additive(features: Array, costs: Array) -> Predictor:
    """The plain sum of shares: what a profile's prices say. Monotone."""
    price = prices(features, costs)
    return lambda new: np.asarray(linear(new) @ price)


def shares(features: Array, costs: Array) -> Predictor:
    """The plain sum, its level following the mix. Monotone."""
    return _mixed(features, costs, linear)


def curved(features: Array, costs: Array) -> Predictor:
    """The sum with square roots, its level following the mix. Monotone."""
    return _mixed(features, costs, rooted)


def smooth(features: Array, costs: Array) -> Predictor:
    """A process free to bend and to tilt, around an equal share of all features."""
    return _free(equal_shares(features, costs), features, costs, SMOOTH)


def power(features: Array, costs: Array) -> Predictor:
    """A process free to bend and to tilt, around a power law."""
    return _free(power_law(features, costs), features, costs, SMOOTH)


def bent(features: Array, costs: Array) -> Predictor:
    """A process of small amplitude around the sum with square roots."""
    price = prices(features, costs, rooted)
    return _free(lambda new: np.asarray(rooted(new) @ price), features, costs, BENT)


def additive_shares(matrix: Array, costs: Array, draws: int = BOOTSTRAP_DRAWS) -> Array:
    """Non-negative weights of the columns of `matrix`, (columns,), averaged over bootstrap draws of the rows.

    Fitted to relative errors, by robust non-negative least squares; so no weight hangs on one measurement.
    """
    random = np.random.default_rng(0)
    weights, last = np.zeros(matrix.shape[1]), np.zeros(matrix.shape[1])
    for _ in range(draws):
        rows = random.integers(0, len(costs), len(costs))
        last = _robust_shares(matrix[rows], costs[rows], last)
        weights += last
    return weights / draws


def power_law(features: Array, costs: Array) -> Predictor:
    """Cost = c * (geometric mean of the features) ** b, with b between 0 and 1."""
    coordinates = LogCoordinates(features)
    along, log_costs = coordinates.raw(features).mean(axis=1), np.log(costs)
    spread = along - along.mean()
    slope = float(np.clip(spread @ log_costs / max(float(spread @ spread), 1e-9), 0.0, 1.0))
    level = float(log_costs.mean() - slope * along.mean())
    return lambda new: np.exp(level + slope * coordinates.raw(new).mean(axis=1))


def equal_shares(features: Array, costs: Array) -> Predictor:
    """Cost = a + b * (sum of the features, each in units of its mean), a and b at least 0."""
    means = features.mean(axis=0)
    means[means == 0] = 1.0

    def columns(new: Array) -> Array:
        return np.column_stack([np.ones(len(new)), (new / means).sum(axis=1)])

    level = _robust_shares(columns(features), costs, np.zeros(2))
    return lambda new: np.maximum(columns(new) @ level, 1e-3 * float(costs.min()))


def _mixed(features: Array, costs: Array, columns: Callable[[Array], Array]) -> Predictor:
    price = prices(features, costs, columns)

    def mix(new: Array) -> Array:
        parts = columns(new) * price
        return np.asarray(parts / parts.sum(axis=1, keepdims=True))

    process = posterior(mix(features), np.log(costs / (columns(features) @ price)), MIX)
    kept = min(1.0, 0.999 / max(math.sqrt(2.0) * process.steepest(), 1e-12))

    def predict(new: Array) -> Array:
        parts = columns(new) * price
        total = parts.sum(axis=1)
        return np.asarray(total * np.exp(kept * process(parts / total[:, None])))

    return predict


def _free(mean: Predictor, features: Array, costs: Array, grid: Grid) -> Predictor:
    at: Coordinates = LogCoordinates(features)
    process = posterior(at(features), np.log(costs / mean(features)), grid)
    return lambda new: np.asarray(mean(new) * np.exp(process(at(new))))


def _robust_shares(matrix: Array, costs: Array, start: Array) -> Array:
    """Non-negative weights of the columns, (columns,); `start` is a guess at them, which saves time and no more."""
    relative = matrix / costs[:, None]
    scale = np.sqrt((relative**2).mean(axis=0))
    scale[scale == 0] = 1.0
    relative, columns = relative / scale, matrix.shape[1]
    trust = np.ones(len(costs))
    weights = start * scale
    for _ in range(REWEIGHTINGS + 1):
        stacked = np.vstack([relative * trust[:, None], math.sqrt(RIDGE) * np.eye(columns)])
        weights = nonnegative_least_squares(stacked, np.concatenate([trust, np.zeros(columns)]), weights)
        error = np.abs(relative @ weights - 1)
        far = 1.5 * float(np.median(error)) + 1e-3
        trust = np.sqrt(np.minimum(1.0, far / np.maximum(error, 1e-12)))
    return np.asarray(weights / scale)
