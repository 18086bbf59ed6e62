"""Another board's latency model carried over with few measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from edgekd.core.latency_fit import Predictor, additive_shares, held_out_log_errors
from edgekd.core.latency_model import predict
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
    that of a prediction interval from so few leave-one-out errors, Student's t times their spread times
    sqrt(1 + 1/n): with three measurements wide, with ten near that of a full fit. It is never narrower than the base's
    own where that was measured: what the base gets wrong of an operator comes along. Its hull and widening stay.

    Args:
        base: the model of another board, runtime or session.
        lists: the operators of each measured model.
        latencies_ms: the median latency of each.
        about: whose figures these are.
        confidence: share of new models that the interval is to hold.

    Raises:
        ValueError: fewer than 2 models.
    """
    if len(lists) < 2 or len(lists) != len(latencies_ms):
        raise ValueError(f"needs at least 2 measured models and one latency each: {len(lists)}, {len(latencies_ms)}")
    columns = np.array([[predict(base, one).value, 1.0, len(one.operators)] for one in lists])
    latencies = np.asarray(latencies_ms, float)
    count = len(latencies)
    ways: list[Way] = [_scale_alone, additive_shares] if count >= TERMS_FROM else [_scale_alone]
    held_out = [held_out_log_errors(_predictor(way), columns, latencies) for way in ways]
    errors, way = min(zip(held_out, ways, strict=True), key=lambda pair: float((pair[0] ** 2).mean()))
    half = student_t(count - 1, confidence) * float(np.sqrt((errors**2).mean() * (1 + 1 / count)))
    if base.provenance == "measured":
        half = max(half, base.half_width)
    scale, overhead, per_operator = (float(share) for share in way(columns, latencies))
    costs = {
        kind: scaled(cost, scale).model_copy(update={"ms_per_op": cost.ms_per_op * scale + per_operator})
        for kind, cost in base.costs.items()
    }
    return about.model_copy(
        update={
            "overhead_ms": base.overhead_ms * scale + overhead,
            "costs": costs,
            "tile": base.tile,
            "hull": base.hull,
            "widening": base.widening,
            "half_width": half,
            "confidence": confidence,
            "samples": count,
            "held_out_mape_percent": float(np.abs(np.exp(-errors) - 1).mean() * 100),
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
