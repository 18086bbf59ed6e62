"""Predicts the latency of one inference from an operator list and a profile's latency model.

A latency model is additive: an overhead, and for each kind of operator a cost per million MACs, per million bytes
moved and per operator. All costs are non-negative, so more work never predicts less time. See `predict_features`
for the interval and for how it widens outside what the model was fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgekd.core.operators import Operator, OperatorList, features
from edgekd.errors import ConfigurationError
from edgekd.records import Estimate, LatencyModel

UNSEEN_KIND_FOLDS = 2.0
"""A kind of work that none of the fitted models held counts as this many e-folds outside the hull."""

COST_OF = {"macs": "ms_per_mmac", "bytes": "ms_per_mbyte", "count": "ms_per_op"}
"""The field of `OperatorCost` that each cost feature's quantity is multiplied by."""


def predict(model: LatencyModel, operators: OperatorList) -> Estimate:
    """The median latency of one inference, in ms, with its interval.

    Raises:
        ConfigurationError: the model has no cost for a kind of operator in the list.
    """
    return predict_features(model, features(operators, model.scheme))


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
            amount * _price(model, name) for name, amount in features(_alone(operators, operator), model.scheme).items()
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
