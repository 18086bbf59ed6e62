"""Learns what models cost on one board from few measured ones: twenty or thirty.

Views of a cost, each positive everywhere, are averaged in the logarithm:

- Additive: the cost is a sum of non-negative shares, one for each feature and one for its square root (parallel work
  and caches make cost grow slower than work). Fitted to relative errors by robust non-negative least squares, averaged
  over bootstrap draws, so that no share hangs on one measurement. It is monotone: more work never costs less.
- Smooth: a Gaussian process on the logarithms of the features, around a power law and around an equal share of all
  features. It sees curvature that shares cannot, and has little to say far from what was measured.

On top of the additive view a Gaussian process corrects what it leaves, with an amplitude weighed by its evidence: about
none where the remainder is noise. The whole is therefore monotone only where the correction is flat; `additive_only`
gives the monotone part alone. The choices were made on the Raspberry Pi 3 and Jetson Orin figures of
benchmarks/data; see benchmarks/latency_model/.

The interval is multiplicative, around the whole fit, as wide as the conformal quantile of leave-one-out errors in the
logarithm (the jackknife: Barber et al. 2021, arXiv:1905.02928, section 1), or of leave-one-group-out errors where new
models come from groups that were not measured. Its coverage is not proven but measured: benchmarks/latency_model/.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.core.latency_features import COST_OF, column_of
from edgekd.core.nonnegative import Array, nonnegative_least_squares
from edgekd.records import LatencyModel, OperatorCost

Predictor = Callable[[Array], Array]

BOOTSTRAP_DRAWS = 16
RIDGE = 0.1
"""Pull of the additive shares towards zero, in units of one relative squared error."""

REWEIGHTINGS = 2
"""Rounds in which measurements that lie far off (beyond 1.5 median errors) lose weight."""

ADDITIVE_WEIGHT, SHARE_WEIGHT, POWER_WEIGHT = 0.4, 0.4, 0.2
NOISES = (0.03, 0.05, 0.08, 0.12)
"""Standard deviations of measurement noise considered, in the logarithm of the cost."""


@dataclass(frozen=True)
class FittedCost:
    """A fitted cost. `half_width`: the true cost is within a factor exp(half_width) in `confidence` of cases."""

    predict: Predictor
    half_width: float
    confidence: float
    held_out_log_errors: Array


def fit_cost(
    features: Array,
    costs: Array,
    confidence: float = 0.9,
    groups: Sequence[str] | None = None,
    additive_only: bool = False,
) -> FittedCost:
    """Fits costs (milliseconds, millijoules: anything positive) to non-negative features.

    Args:
        features: (models, features), each at least 0 and growing with work.
        costs: (models,), positive.
        confidence: share of new models that the interval is to hold.
        groups: a group for each model, where predictions are wanted for groups never measured: the interval then
            comes from leaving whole groups out.
        additive_only: only the additive view, which is monotone in every feature.

    Raises:
        ValueError: fewer than 4 models, or features or costs out of range.
    """
    features, costs = np.asarray(features, float), np.asarray(costs, float)
    if len(costs) < 4 or features.shape[:1] != costs.shape:
        raise ValueError(f"needs at least 4 measured models and one cost each, got {features.shape}, {costs.shape}")
    if not (np.isfinite(features).all() and (features >= 0).all() and np.isfinite(costs).all() and (costs > 0).all()):
        raise ValueError("features must be finite and at least 0, costs finite and above 0")
    learn = additive if additive_only else averaged
    held_out = held_out_log_errors(learn, features, costs, groups)
    return FittedCost(learn(features, costs), conformal_half_width(held_out, confidence), confidence, held_out)


def held_out_log_errors(
    learn: Callable[[Array, Array], Predictor], features: Array, costs: Array, groups: Sequence[str] | None = None
) -> Array:
    """log(true / predicted) of each model, predicted without it (or without its group)."""
    names = np.arange(len(costs)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    errors = np.zeros(len(costs))
    for name in np.unique(names):
        out = names == name
        if out.all():
            raise ValueError("all models are of one group: none is left to fit on")
        errors[out] = np.log(costs[out] / learn(features[~out], costs[~out])(features[out]))
    return errors


def conformal_half_width(log_errors: Array, confidence: float) -> float:
    """The ceil(confidence (n + 1))-th smallest absolute error; the largest where n is too small for that."""
    rank = min(math.ceil(confidence * (len(log_errors) + 1)), len(log_errors))
    return float(np.sort(np.abs(log_errors))[rank - 1])


def averaged(features: Array, costs: Array) -> Predictor:
    """All views, averaged in the logarithm."""
    views = (
        (ADDITIVE_WEIGHT, corrected(additive(features, costs), features, costs)),
        (SHARE_WEIGHT, smooth(equal_shares(features, costs), features, costs)),
        (POWER_WEIGHT, smooth(power_law(features, costs), features, costs)),
    )
    return lambda new: np.exp(sum(weight * np.log(view(new)) for weight, view in views))


def fit_latency_model(
    rows: Sequence[Mapping[str, float]], latencies_ms: Sequence[float], about: LatencyModel, confidence: float = 0.9
) -> LatencyModel:
    """The additive view without square roots, as a record that a profile keeps.

    Features of one column (see `edgekd.core.latency_features.column_of`) get one price.

    Args:
        rows: cost features by name of each measured model (see `edgekd.core.latency_features`).
        latencies_ms: the median latency of each.
        about: whose figures they are (runtime, scheme, threads, provenance, source); its fitted fields are replaced.
        confidence: share of new models that the interval is to hold.

    Returns:
        `about` with overhead, costs, hull, half width, samples and leave-one-out error of this fit.

    Raises:
        ValueError: fewer than 4 models.
    """
    if len(rows) < 4 or len(rows) != len(latencies_ms):
        raise ValueError(f"needs at least 4 measured models and one latency each, got {len(rows)}, {len(latencies_ms)}")
    names = sorted({name for row in rows for name, amount in row.items() if amount > 0})
    amounts = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    columns = sorted({column_of(name) for name in names})
    features = amounts @ np.array([[float(column_of(name) == column) for column in columns] for name in names])
    latencies = np.asarray(latencies_ms, float)

    def shares(features: Array, costs: Array) -> Array:
        return additive_shares(np.column_stack([np.ones(len(features)), features]), costs)

    def learn(features: Array, costs: Array) -> Predictor:
        fitted, floor = shares(features, costs), 1e-3 * float(costs.min())
        return lambda new: np.maximum(fitted[0] + new @ fitted[1:], floor)

    fitted = shares(features, latencies)
    held_out = held_out_log_errors(learn, features, latencies)
    costs: dict[str, dict[str, float]] = {}
    for name in names:
        quantity, _, kind = name.partition(".")
        costs.setdefault(kind, {})[COST_OF[quantity]] = float(fitted[1 + columns.index(column_of(name))])
    return about.model_copy(
        update={
            "overhead_ms": float(fitted[0]),
            "costs": {kind: OperatorCost(**cost) for kind, cost in costs.items()},
            "hull": {
                name: (float(column.min()), float(column.max())) for name, column in zip(names, amounts.T, strict=True)
            },
            "half_width": conformal_half_width(held_out, confidence),
            "confidence": confidence,
            "samples": len(latencies),
            "held_out_mape_percent": float(np.abs(np.exp(-held_out) - 1).mean() * 100),
        }
    )


def additive(features: Array, costs: Array) -> Predictor:
    """The additive view: non-negative shares of features and of their square roots; monotone."""
    shares = additive_shares(_curved(features), costs)
    floor = 1e-3 * float(costs.min())
    return lambda new: np.maximum(_curved(new) @ shares, floor)


def additive_shares(matrix: Array, costs: Array, draws: int = BOOTSTRAP_DRAWS) -> Array:
    """Non-negative weights of the columns of `matrix`, (columns,), averaged over bootstrap draws of the rows."""
    random = np.random.default_rng(0)
    weights = np.zeros(matrix.shape[1])
    for _ in range(draws):
        rows = random.integers(0, len(costs), len(costs))
        weights += _robust_shares(matrix[rows], costs[rows])
    return weights / draws


def _curved(features: Array) -> Array:
    return np.column_stack([np.ones(len(features)), features, np.sqrt(features)])


def _robust_shares(matrix: Array, costs: Array) -> Array:
    relative = matrix / costs[:, None]
    scale = np.sqrt((relative**2).mean(axis=0))
    scale[scale == 0] = 1.0
    relative, columns = relative / scale, matrix.shape[1]
    trust = np.ones(len(costs))
    weights = np.zeros(columns)
    for _ in range(REWEIGHTINGS + 1):
        stacked = np.vstack([relative * trust[:, None], math.sqrt(RIDGE) * np.eye(columns)])
        weights = nonnegative_least_squares(stacked, np.concatenate([trust, np.zeros(columns)]))
        error = np.abs(relative @ weights - 1)
        far = 1.5 * float(np.median(error)) + 1e-3
        trust = np.sqrt(np.minimum(1.0, far / np.maximum(error, 1e-12)))
    return np.asarray(weights / scale)


def power_law(features: Array, costs: Array) -> Predictor:
    """Cost = c * (geometric mean of the features) ** b, with b between 0 and 1."""
    coordinates = _Coordinates(features)
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

    shares = _robust_shares(columns(features), costs)
    return lambda new: np.maximum(columns(new) @ shares, 1e-3 * float(costs.min()))


def corrected(mean: Predictor, features: Array, costs: Array) -> Predictor:
    """`mean` times a Gaussian process of small amplitude, weighed by evidence."""
    return _gaussian_process(mean, features, costs, (1.5, 3.0, 6.0), (0.02, 0.05, 0.1, 0.2, 0.4), (0.0,))


def smooth(mean: Predictor, features: Array, costs: Array) -> Predictor:
    """`mean` times a Gaussian process free to bend and to tilt along every feature."""
    return _gaussian_process(mean, features, costs, (3.0, 6.0), (0.1, 0.2, 0.4, 0.8), (0.03, 0.1, 0.3))


class _Coordinates:
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
        scaled = features / self.unit
        return np.where(self.may_be_absent, np.log1p(scaled), np.log(np.maximum(scaled, 1e-4)))

    def __call__(self, features: Array) -> Array:
        return np.asarray((self.raw(features) - self.centre) / self.spread)


def _matern(first: Array, second: Array, length: float) -> Array:
    """Matern 5/2 covariance between rows (Rasmussen and Williams 2006, eq. 4.17)."""
    distance = np.sqrt(np.maximum(((first[:, None] - second[None]) ** 2).sum(axis=-1), 0.0))
    scaled = math.sqrt(5.0) * distance / length
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


def _gaussian_process(
    mean: Predictor,
    features: Array,
    costs: Array,
    lengths: Sequence[float],
    amplitudes: Sequence[float],
    tilts: Sequence[float],
) -> Predictor:
    """Averages Gaussian processes over a grid of hyperparameters, each weighed by its marginal likelihood."""
    coordinates = _Coordinates(features)
    at, remainder = coordinates(features), np.log(costs / mean(features))
    rows, plain = len(costs), coordinates(features)
    bends = {length: _matern(at, at, length) for length in lengths}
    tilt_of = plain @ plain.T
    grid = list(itertools.product(lengths, amplitudes, tilts, NOISES))
    covariances = np.stack(
        [a**2 * bends[length] + t**2 * tilt_of + noise**2 * np.eye(rows) for length, a, t, noise in grid]
    )
    factors = np.linalg.cholesky(covariances)
    solved = np.linalg.solve(covariances, np.broadcast_to(remainder, (len(grid), rows))[..., None])[..., 0]
    evidence = -0.5 * solved @ remainder - np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    bend_weights = {length: np.zeros(rows) for length in lengths}
    tilt_weights = np.zeros(rows)
    for share, (length, amplitude, tilt, _), one in zip(weight, grid, solved, strict=True):
        bend_weights[length] += share * amplitude**2 * one
        tilt_weights += share * tilt**2 * one

    def predict(new: Array) -> Array:
        there = coordinates(new)
        correction = there @ (at.T @ tilt_weights)
        for length in lengths:
            correction = correction + _matern(there, at, length) @ bend_weights[length]
        return np.asarray(mean(new) * np.exp(correction))

    return predict
