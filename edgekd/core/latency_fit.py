"""Learns what models cost on one board from few measured ones: twenty or thirty.

Views of a cost (`edgekd.core.latency_views`) are averaged in the logarithm: those that bend freely, or the monotone
ones where the free err by far more on models left out of the fit. This is the only fit there is: the model that
`edgekd calibrate` writes and what `benchmarks/latency_model.py` evaluates both come from `fit_cost`. For a profile it
is told to consider the monotone views alone, which on students it chooses anyway: more work must never cost less there.

The interval lies around the plain sum of shares, whose both ends are therefore monotone in every feature. It is as
wide as the conformal quantile of the sum's leave-one-out errors in the logarithm (the jackknife: Barber et al. 2021,
arXiv:1905.02928, section 1), or of leave-one-group-out errors where new models come from groups that were not
measured. Its coverage is not proven but measured: benchmarks/latency_model/. The predicted cost is kept between its
ends, and is monotone too wherever the `MONOTONE` views were chosen.

The choices were made on the Raspberry Pi 3 and Jetson Orin figures of benchmarks/data and on students timed on one
x86-64 machine; see benchmarks/latency_model/.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.core.latency_features import COST_OF, column_of
from edgekd.core.latency_views import (
    Learner,
    Predictor,
    additive,
    bent,
    curved,
    power,
    prices,
    shares,
    smooth,
)
from edgekd.core.nonnegative import Array
from edgekd.records import LatencyModel, MeasuredWork, OperatorCost

VIEWS: Mapping[str, Learner] = {"shares": shares, "curved": curved, "bent": bent, "smooth": smooth, "power": power}
MONOTONE = {"shares": 0.5, "curved": 0.5}
FREE = {"bent": 0.4, "smooth": 0.4, "power": 0.2}
"""Weights of the views that are monotone in every feature, and of those that are not."""

FREE_UP_TO = 2.0
"""The free views predict unless their mean squared log error on what was left out is over this many times that of the
monotone ones. It was 3.1 to 5.0 times for students by operator kind, and under 1.4 in 42 of 45 fits to 20 or more
ImageNet models by eight features (benchmarks/latency_model/TRIED.md)."""


@dataclass(frozen=True)
class FittedCost:
    """A fitted cost.

    Attributes:
        predict: the cost of models by their features.
        prices: of the plain sum: the overhead, then one for each feature.
        half_width: the true cost is within a factor exp(half_width) of the plain sum in `confidence` of cases.
        views: weight of each view.
        held_out_log_errors: log(true / predicted) of each measured model, predicted by the views without it.
    """

    predict: Predictor
    prices: Array
    half_width: float
    confidence: float
    views: dict[str, float]
    held_out_log_errors: Array

    @property
    def monotone(self) -> bool:
        """Whether more of any feature never predicts a smaller cost."""
        return set(self.views) <= set(MONOTONE)

    def ends(self, features: Array) -> tuple[Array, Array]:
        """The interval's lower and upper ends, (models,) each. Monotone in every feature."""
        total = self.prices[0] + features @ self.prices[1:]
        return total * math.exp(-self.half_width), total * math.exp(self.half_width)

    def holds(self, features: Array, costs: Array) -> Array:
        """Whether the interval holds each cost, (models,)."""
        low, high = self.ends(features)
        return np.asarray((low <= costs) & (costs <= high))


def fit_cost(
    features: Array,
    costs: Array,
    confidence: float = 0.9,
    groups: Sequence[str] | None = None,
    additive_only: bool = False,
    monotone: bool = False,
) -> FittedCost:
    """Fits costs (milliseconds, millijoules: anything positive) to non-negative features.

    Args:
        features: (models, features), each at least 0 and growing with work.
        costs: (models,), positive.
        confidence: share of new models that the interval is to hold.
        groups: a group for each model, where predictions are wanted for groups never measured: the choice of views and
            the interval then come from leaving whole groups out.
        additive_only: the plain sum of shares predicts, and no view.
        monotone: only the monotone views are considered, as a profile's model must be.

    Raises:
        ValueError: fewer than 4 models, or features or costs out of range.
    """
    features, costs = np.asarray(features, float), np.asarray(costs, float)
    if len(costs) < 4 or features.shape[:1] != costs.shape:
        raise ValueError(f"needs at least 4 measured models and one cost each, got {features.shape}, {costs.shape}")
    if not (np.isfinite(features).all() and (features >= 0).all() and np.isfinite(costs).all() and (costs > 0).all()):
        raise ValueError("features must be finite and at least 0, costs finite and above 0")
    price = prices(features, costs)
    plain = held_out_log_errors(additive, features, costs, groups)
    half_width = conformal_half_width(plain, confidence)
    if additive_only:
        return FittedCost(lambda new: price[0] + new @ price[1:], price, half_width, confidence, {}, plain)
    considered = MONOTONE if monotone else VIEWS
    errors = {name: held_out_log_errors(VIEWS[name], features, costs, groups) for name in considered}
    views = dict(MONOTONE) if monotone else chosen_views(errors)
    held_out = np.asarray(plain - np.clip(plain - _mean(views, errors), -half_width, half_width))
    predict = averaged(views, features, costs, half_width)
    return FittedCost(predict, price, half_width, confidence, views, held_out)


def fit_latency_model(
    rows: Sequence[Mapping[str, float]],
    latencies_ms: Sequence[float],
    about: LatencyModel,
    confidence: float = 0.9,
    additive_only: bool = False,
) -> LatencyModel:
    """The fit as a record that a profile keeps: the plain sum's prices, and the measurements that the views need.

    Features of one column (see `edgekd.core.latency_features.column_of`) get one price.

    Args:
        rows: cost features by name of each measured model (see `edgekd.core.latency_features`).
        latencies_ms: the median latency of each.
        about: whose figures they are (runtime, scheme, threads, provenance, source); its fitted fields are replaced.
        confidence: share of new models that the interval is to hold.
        additive_only: the plain sum predicts, and no view.

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
    fitted = fit_cost(features, np.asarray(latencies_ms, float), confidence, additive_only=additive_only, monotone=True)
    rows_kept = tuple((float(ms), *map(float, row)) for ms, row in zip(latencies_ms, features, strict=True))
    measured = MeasuredWork.model_validate(
        {"columns": columns, "rows": rows_kept, "views": list(fitted.views), "weights": list(fitted.views.values())}
    )
    costs: dict[str, dict[str, float]] = {}
    for name in names:
        quantity, _, kind = name.partition(".")
        costs.setdefault(kind, {})[COST_OF[quantity]] = float(fitted.prices[1 + columns.index(column_of(name))])
    return about.model_copy(
        update={
            "overhead_ms": float(fitted.prices[0]),
            "costs": {kind: OperatorCost(**cost) for kind, cost in costs.items()},
            "hull": {
                name: (float(column.min()), float(column.max())) for name, column in zip(names, amounts.T, strict=True)
            },
            "half_width": fitted.half_width,
            "confidence": confidence,
            "measured": measured if fitted.views else None,
            "samples": len(latencies_ms),
            "held_out_mape_percent": float(np.abs(np.exp(-fitted.held_out_log_errors) - 1).mean() * 100),
        }
    )


def chosen_views(errors: Mapping[str, Array]) -> dict[str, float]:
    """The weights of the free views, or of the monotone ones where the free err by far more, by held-out log errors."""
    squares = [float((_mean(weights, errors) ** 2).mean()) for weights in (FREE, MONOTONE)]
    return dict(FREE if squares[0] <= FREE_UP_TO * squares[1] else MONOTONE)


def _mean(weights: Mapping[str, float], errors: Mapping[str, Array]) -> Array:
    return np.asarray(sum(weight * errors[name] for name, weight in weights.items()))


def averaged(views: Mapping[str, float], features: Array, costs: Array, half_width: float) -> Predictor:
    """The views fitted and averaged in the logarithm, kept within the interval around the plain sum."""
    fitted = [(weight, VIEWS[name](features, costs)) for name, weight in views.items()]
    plain = additive(features, costs)

    def predict(new: Array) -> Array:
        total = plain(new)
        found = np.exp(sum(weight * np.log(view(new)) for weight, view in fitted)) if fitted else total
        return np.clip(found, total * math.exp(-half_width), total * math.exp(half_width))

    return predict


@functools.lru_cache(maxsize=32)
def predictor_of(measured: MeasuredWork, half_width: float) -> Predictor:
    """The views of a profile's latency model, fitted again to the measurements that it keeps."""
    table = np.array(measured.rows)
    return averaged(dict(zip(measured.views, measured.weights, strict=True)), table[:, 1:], table[:, 0], half_width)


def held_out_log_errors(learn: Learner, features: Array, costs: Array, groups: Sequence[str] | None = None) -> Array:
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
