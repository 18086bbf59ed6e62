"""Predicts the latency of one inference from an operator list and a profile's latency model.

A latency model is additive: an overhead, and for each kind of operator a cost per million MACs (as they are, or as
kernels pad them), per million bytes moved, per output position and per operator. All costs are non-negative, so more
work never predicts less time. See `predict_features` for the interval and for how it widens outside what the model was
fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgekd.core.operators import Operator, OperatorList, features
from edgekd.errors import ConfigurationError
from edgekd.records import Estimate, LatencyModel

UNSEEN_KIND_FOLDS = 2.0
"""A kind of work that none of the fitted models held counts as this many e-folds outside the hull."""

COST_OF = {
    "macs": "ms_per_mmac",
    "bytes": "ms_per_mbyte",
    "count": "ms_per_op",
    "tiled": "ms_per_mtiled_mac",
    "positions": "ms_per_kposition",
}
"""The field of `OperatorCost` that each cost feature's quantity is multiplied by."""


def predict(model: LatencyModel, operators: OperatorList) -> Estimate:
    """The median latency of one inference, in ms, with its interval.

    Raises:
        ConfigurationError: the model has no cost for a kind of operator in the list.
    """
    return predict_features(model, cost_features(operators, model.scheme, model.tile))


INNER_TILE = 8
"""Input channels (times kernel) are taken in steps of this many by the int8 kernels of XNNPACK and ruy."""


def cost_features(operators: OperatorList, scheme: str, tile: int | None) -> dict[str, float]:
    """The features of `edgekd.core.operators.features`; with a `tile`, those that see how kernels fill it as well.

    `tiled.KIND`: millions of MACs with output channels rounded up to `tile` and, but for depthwise convolutions, the
    sum's length to `INNER_TILE`; `positions.KIND`: thousands of output positions. A student of 12 channels costs what
    one of 16 does where kernels are 16 wide: on students so narrow MACs alone mislead.
    """
    values = features(operators, scheme)
    if tile is None:
        return values
    for operator in operators.operators:
        if not operator.macs:
            continue
        positions = operator.macs / operator.weights
        channels = operator.biases or operators.tensors[operator.output] / positions
        length = operator.weights / channels
        if operator.kind != "depthwise":
            length = INNER_TILE * math.ceil(length / INNER_TILE)
        tiled = positions * tile * math.ceil(channels / tile) * length
        for name, amount in ((f"tiled.{operator.kind}", tiled / 1e6), (f"positions.{operator.kind}", positions / 1e3)):
            values[name] = values.get(name, 0.0) + amount
    return values


def predict_features(model: LatencyModel, values: Mapping[str, float]) -> Estimate:
    """The same from cost features by name (see `edgekd.core.operators.features`).

    The interval is multiplicative: `value * exp(±half)`, `half = half_width + widening * folds_outside_hull`.

    Raises:
        ConfigurationError: the model has no cost for a kind of operator in `values`.
    """
    value = model.overhead_ms + sum(amount * _price(model, name) for name, amount in values.items())
    half = model.half_width + model.widening * folds_outside_hull(model, values)
    low, high = value * math.exp(-half), value * math.exp(half)
    source = f"latency model: {model.provenance}, {model.runtime_version}, {model.source}"
    return Estimate(value=value, low=low, high=high, confidence=model.confidence, basis="predicted", source=source)


def operator_latencies_ms(model: LatencyModel, operators: OperatorList) -> list[float]:
    """Each operator's part of the predicted latency, in ms, in order; the overhead is no operator's.

    Raises:
        ConfigurationError: the model has no cost for a kind of operator in the list.
    """
    return [
        sum(
            amount * _price(model, name)
            for name, amount in cost_features(_alone(operators, operator), model.scheme, model.tile).items()
        )
        for operator in operators.operators
    ]


def _alone(operators: OperatorList, operator: Operator) -> OperatorList:
    return OperatorList((operator,), operators.tensors, operator.inputs, (operator.output,))


def _price(model: LatencyModel, feature: str) -> float:
    """Milliseconds for one unit of a cost feature (`macs.pointwise`: one million MACs)."""
    quantity, _, kind = feature.partition(".")
    cost = model.costs.get(kind)
    if cost is None:
        raise ConfigurationError(
            f"latency model ({model.runtime}, {model.scheme}): no cost for operators of kind '{kind}'; "
            f"add it to [latency_models.costs] in the profile"
        )
    return float(getattr(cost, COST_OF[quantity]))


def folds_outside_hull(model: LatencyModel, values: Mapping[str, float]) -> float:
    """How far the features lie outside what the model was fitted on: the largest |ln(feature / nearest edge)|.

    Work that is absent (a feature of 0) costs nothing and is never outside. Work of which the fitted models held
    none (an upper edge of 0) counts as `UNSEEN_KIND_FOLDS`.
    """
    farthest = 0.0
    for name, (low, high) in model.hull.items():
        value = values.get(name, 0.0)
        if value <= 0.0:
            continue
        if high <= 0.0:
            outside = UNSEEN_KIND_FOLDS
        elif value > high:
            outside = math.log(value / high)
        elif value < low:
            outside = math.log(low / value)
        else:
            continue
        farthest = max(farthest, outside)
    return farthest
