"""Predicts the latency of one inference from an operator list and a profile's latency model.

A latency model is additive: an overhead, and for each kind of operator a cost per million MACs (as they are, or as
kernels pad them), per million bytes moved, per output position and per operator. All costs are non-negative, so more
work never predicts less time. See `edgekd.core.latency_interval` for the interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgekd.core.latency_interval import interval
from edgekd.core.operators import Operator, OperatorList, features
from edgekd.errors import ConfigurationError
from edgekd.records import Estimate, LatencyModel

COST_OF = {
    "macs": "ms_per_mmac",
    "bytes": "ms_per_mbyte",
    "count": "ms_per_op",
    "tiled": "ms_per_mtiled_mac",
    "positions": "ms_per_kposition",
}
"""The field of `OperatorCost` that each cost feature's quantity is multiplied by."""


def predict(model: LatencyModel, operators: OperatorList, confidence: float | None = None) -> Estimate:
    """The median latency of one inference, in ms, with its interval (of the model's own confidence by default).

    Raises:
        ConfigurationError: the model has no cost for a kind of operator in the list.
    """
    return predict_features(model, cost_features(operators, model.scheme, model.tile), confidence)


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


def predict_features(model: LatencyModel, values: Mapping[str, float], confidence: float | None = None) -> Estimate:
    """The same from cost features by name (see `edgekd.core.operators.features`).

    The interval is multiplicative: see `edgekd.core.latency_interval`. Its upper end never falls as work grows.

    Args:
        model: the fitted or carried-over model.
        values: amounts by feature name.
        confidence: of the interval; None takes the model's own. The widths scale as those of a normal distribution.

    Raises:
        ConfigurationError: the model has no cost for a kind of operator in `values`.
    """
    prices = {name: _price(model, name) for name in values}
    value = model.overhead_ms + sum(amount * prices[name] for name, amount in values.items())
    wanted = model.confidence if confidence is None else confidence
    low, high = interval(model, values, prices, value, wanted)
    source = f"latency model: {model.provenance}, {model.runtime_version}, {model.source}"
    return Estimate(value=value, low=low, high=high, confidence=wanted, basis="predicted", source=source)


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
