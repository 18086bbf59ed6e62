"""Another board's latency model carried over with few measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.core.latency_fit import conformal_half_width, held_out_log_errors
from edgekd.core.latency_model import plain_sum, predict
from edgekd.core.latency_views import Predictor, additive_shares
from edgekd.core.nonnegative import Array
from edgekd.core.operators import OperatorList
from edgekd.core.statistics import student_t
from edgekd.records import LatencyModel, OperatorCost

Way = Callable[[Array, Array], Array]
"""From (models, 3) columns and their latencies to a scale, an overhead and a cost per operator."""

TERMS_FROM = 8
"""Measurements from which a carried-over model may get terms of its own beside a scale."""


def transfer_latency_model(
    base: LatencyModel,
    lists: Sequence[OperatorList],
    latencies_ms: Sequence[float],
    about: LatencyModel,
    confidence: float = 0.9,
) -> LatencyModel:
    """Another board's model carried over with few measurements.

    It gets a scale; and from eight measurements on an overhead and a cost per operator of its own, where that predicts
    better what was left out. The half width is
    that of a prediction interval from so few leave-one-out errors, Student's t (as many degrees of freedom as
    measurements less fitted terms) times their spread times sqrt(1 + 1/n): with three measurements wide, with ten near
    that of a full fit. It is never narrower than the conformal quantile of those errors, nor than the base's own where
    that was measured: what the base gets wrong of an operator comes along. Its hull and widening stay.

    Args:
        base: the model of another board, runtime or session.
        lists: the operators of each measured model.
        latencies_ms: the median latency of each.
        about: whose figures these are.
        confidence: share of new models that the interval is to hold.

    Raises:
        ValueError: fewer than 2 models.
    """
    found = carry(base, lists, latencies_ms, confidence)
    return carried_model(base, found, about).model_copy(
        update={
            "confidence": confidence,
            "samples": len(latencies_ms),
            "held_out_mape_percent": found.held_out_mape_percent,
        }
    )


@dataclass(frozen=True)
class Carried:
    """A target as `scale` times a model's prediction, plus `overhead`, plus `per_operator` for each operator.

    In the target's unit; `scale` in that for a millisecond. `half_width` as a latency model's.
    """

    scale: float
    overhead: float
    per_operator: float
    half_width: float
    held_out_mape_percent: float


def carry(
    base: LatencyModel, lists: Sequence[OperatorList], targets: Sequence[float], confidence: float = 0.9
) -> Carried:
    """Fit a positive target (another board's latency, energy) to a latency model's predictions.

    Raises:
        ValueError: fewer than 2 measured models.
    """
    if len(lists) < 2 or len(lists) != len(targets):
        raise ValueError(f"needs at least 2 measured models and one figure each: {len(lists)}, {len(targets)}")
    plain = plain_sum(base)
    columns = np.array([[predict(plain, one).value, 1.0, len(one.operators)] for one in lists])
    measured, count = np.asarray(targets, float), len(targets)
    ways: list[Way] = [_scale_alone, additive_shares] if count >= TERMS_FROM else [_scale_alone]
    held_out = [held_out_log_errors(_predictor(way), columns, measured) for way in ways]
    errors, way = min(zip(held_out, ways, strict=True), key=lambda pair: float((pair[0] ** 2).mean()))
    freedom = count - (1 if way is _scale_alone else columns.shape[1])
    half = student_t(freedom, confidence) * float(np.sqrt((errors**2).mean() * (1 + 1 / count)))
    half = max(half, conformal_half_width(errors, confidence))
    if base.provenance == "measured":
        half = max(half, base.half_width)
    mape = float(np.abs(np.exp(-errors) - 1).mean() * 100)
    scale, overhead, per_operator = (float(share) for share in way(columns, measured))
    return Carried(scale, overhead, per_operator, half, mape)


def carried_model(base: LatencyModel, carried: Carried, about: LatencyModel) -> LatencyModel:
    """`base` with every price carried over; what it was fitted to (hull, widening, kernels) stays."""
    scale, costs = carried.scale, {}
    for kind, cost in base.costs.items():
        per_op = cost.ms_per_op * scale + carried.per_operator
        costs[kind] = scaled(cost, scale).model_copy(update={"ms_per_op": per_op})
    return about.model_copy(
        update={
            "overhead_ms": base.overhead_ms * scale + carried.overhead,
            "costs": costs,
            "tile": base.tile,
            "indirect": base.indirect,
            "hull": base.hull,
            "widening": base.widening,
            "half_width": carried.half_width,
            "measured": None,
        }
    )


def _scale_alone(columns: Array, latencies: Array) -> Array:
    return np.array([math.exp(float(np.median(np.log(latencies / columns[:, 0])))), 0.0, 0.0])


def _predictor(way: Way) -> Callable[[Array, Array], Predictor]:
    def learn(columns: Array, latencies: Array) -> Predictor:
        terms, floor = way(columns, latencies), 1e-3 * float(latencies.min())
        return lambda new: np.maximum(new @ terms, floor)

    return learn


def scaled(cost: OperatorCost, scale: float) -> OperatorCost:
    """Every price of a kind times `scale`."""
    return OperatorCost(**{name: value * scale for name, value in cost.model_dump().items()})
