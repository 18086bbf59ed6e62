"""Predicts the latency of one inference from an operator list and a profile's latency model.

A latency model has a plain sum: an overhead, and for each kind of operator a cost for each of the quantities in
`edgekd.core.latency_features`. All costs are non-negative, so more work never costs less. The interval lies around it:
see `edgekd.core.latency_interval`. A fitted model also keeps what it was fitted to, and predicts by the views of that
(`edgekd.core.latency_views`), within the half width around the plain sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from edgekd.core.latency_features import COST_OF, column_of, cost_features, kernels_of
from edgekd.core.latency_fit import predictor_of
from edgekd.core.latency_interval import interval
from edgekd.core.operators import Operator, OperatorList
from edgekd.errors import ConfigurationError
from edgekd.records import DeviceProfile, Estimate, LatencyModel, RuntimeName


def predict(model: LatencyModel, operators: OperatorList, confidence: float | None = None) -> Estimate:
    """The median latency of one inference, in ms, with its interval (of the model's own confidence by default).

    Raises:
        ConfigurationError: the model has no cost for a kind of operator in the list.
    """
    return predict_all(model, [operators], confidence)[0]


def predict_all(model: LatencyModel, lists: Sequence[OperatorList], confidence: float | None = None) -> list[Estimate]:
    """`predict` of many operator lists in one go, which is far quicker than one by one.

    Raises:
        ConfigurationError: the model has no cost for a kind of operator in one of the lists.
    """
    return _predict_rows(model, [cost_features(one, model.scheme, kernels_of(model)) for one in lists], confidence)


def predict_features(model: LatencyModel, values: Mapping[str, float], confidence: float | None = None) -> Estimate:
    """The same from cost features by name (see `edgekd.core.latency_features`).

    The interval is multiplicative: see `edgekd.core.latency_interval`. Its upper end never falls as work grows.

    Args:
        model: the fitted or carried-over model.
        values: amounts by feature name.
        confidence: of the interval; None takes the model's own. The widths scale as those of a normal distribution.

    Raises:
        ConfigurationError: the model has no cost for a kind of operator in `values`.
    """
    return _predict_rows(model, [values], confidence)[0]


def _predict_rows(model: LatencyModel, rows: Sequence[Mapping[str, float]], confidence: float | None) -> list[Estimate]:
    prices = {name: _price(model, name) for name in dict.fromkeys(chain.from_iterable(rows))}
    plain = [model.overhead_ms + sum(amount * prices[name] for name, amount in row.items()) for row in rows]
    wanted = model.confidence if confidence is None else confidence
    source = f"latency model: {model.provenance}, {model.runtime_version}, {model.source}"
    found = []
    for row, middle, value in zip(rows, plain, _seen(model, rows, prices, plain), strict=True):
        low, high = interval(model, row, prices, middle, wanted)
        low, high = min(low, value), max(high, value)
        found.append(Estimate(value=value, low=low, high=high, confidence=wanted, basis="predicted", source=source))
    return found


def plain_sum(model: LatencyModel) -> LatencyModel:
    """The model without its views: its prices alone predict."""
    return model.model_copy(update={"measured": None})


def _seen(
    model: LatencyModel, rows: Sequence[Mapping[str, float]], prices: Mapping[str, float], plain: list[float]
) -> list[float]:
    """What the views of the measurements make of plain sums. Work that they never saw adds its price."""
    if model.measured is None or not rows:
        return plain
    columns = model.measured.columns
    names = [name for name in prices if column_of(name) in columns]
    amounts = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    belongs = np.array([[column_of(name) == column for name in names] for column in columns], float)
    known = model.overhead_ms + amounts @ np.array([prices[name] for name in names])
    predicted = predictor_of(model.measured, model.half_width)(amounts @ belongs.T)
    return [float(value) for value in predicted + np.array(plain) - known]


def operator_latencies_ms(model: LatencyModel, operators: OperatorList) -> list[float]:
    """Each operator's part of the predicted latency, in ms, in order; the overhead is no operator's.

    What the views predict beside the plain sum is shared out in proportion.

    Raises:
        ConfigurationError: the model has no cost for a kind of operator in the list.
    """
    parts = [
        sum(
            amount * _price(model, name)
            for name, amount in cost_features(_alone(operators, operator), model.scheme, kernels_of(model)).items()
        )
        for operator in operators.operators
    ]
    plain = model.overhead_ms + sum(parts)
    times = predict(model, operators).value / plain if plain > 0 else 1.0
    return [part * times for part in parts]


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


def latency_model_for(profile: DeviceProfile, scheme: str, runtime: RuntimeName | None = None) -> LatencyModel | None:
    """The profile's latency model for that scheme and runtime at its own threads, or None.

    A measured model comes before a published one and that before a prior.
    """
    wanted = runtime or profile.operating_point.runtime
    order = ("measured", "published", "prior")
    fitting = [
        model
        for model in profile.latency_models
        if model.runtime == wanted
        and model.scheme == scheme
        and model.threads in (None, profile.operating_point.threads)
    ]
    return min(fitting, key=lambda model: order.index(model.provenance), default=None)
