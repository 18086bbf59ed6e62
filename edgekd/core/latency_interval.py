"""How sure a latency model is: inside the features it was fitted on, above them and below them.

The interval is multiplicative. Inside the hull its half width, in the logarithm, is the model's `half_width`. For every
e-fold above the hull it grows by `widening`, both ways. Below the hull it grows

- downwards by twice `widening`: fits to large models overstate small ones, because what looks like a fixed cost among
  large models shrinks with them;
- upwards by `widening`, but for no more than `UPWARD_FOLDS` e-folds, and never so far that a network would be slower
  than another all of whose features are at least as large: that one's upper end bounds this one's too.

So the upper end, which decides what fits, never falls as work grows. The two figures come from leaving out the
smallest models of the Raspberry Pi 3, Jetson Orin and host tables: benchmarks/latency_model/below_hull.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from statistics import NormalDist

from edgekd.records import LatencyModel

UNSEEN_KIND_FOLDS = 2.0
"""A kind of work that none of the fitted models held counts as this many e-folds outside the hull."""

UPWARD_FOLDS, DOWNWARD = 2.0, 2.0
"""Below the hull: e-folds after which the upper end widens no more; how many times `widening` the lower end does."""

Amounts = Mapping[str, float]


def interval(
    model: LatencyModel, values: Amounts, prices: Amounts, value: float, confidence: float
) -> tuple[float, float]:
    """The lower and upper end around a predicted latency, in the prediction's unit.

    Args:
        model: whose half width, widening and hull count.
        values: amounts by feature name.
        prices: cost of one unit of each of those features.
        value: the prediction: the overhead plus the sum of amounts times prices.
        confidence: that the interval is to have; widths scale as those of a normal distribution.
    """
    above, below = folds_above_hull(model, values), _folds_below_hull(model, values)
    lowest = max(below.values(), default=0.0)
    times = _width_ratio(model.confidence, confidence)
    half, widening = times * model.half_width, times * model.widening
    low = value * math.exp(-half - widening * max(above, DOWNWARD * lowest))
    return low, math.exp(half) * _widened_upwards(model, values, prices, value, widening, above, below)


def folds_above_hull(model: LatencyModel, values: Amounts) -> float:
    """How far features lie above what the model was fitted on: the largest ln(feature / upper edge).

    Work of which the fitted models held none (an upper edge of 0) counts as `UNSEEN_KIND_FOLDS`.
    """
    folds = 0.0
    for name, (_, high) in model.hull.items():
        value = values.get(name, 0.0)
        if value > high:
            folds = max(folds, math.log(value / high) if high > 0 else UNSEEN_KIND_FOLDS)
    return folds


def _folds_below_hull(model: LatencyModel, values: Amounts) -> dict[str, float]:
    """ln(lower edge / feature) of the features below it. Work that is absent costs nothing and is never outside."""
    return {
        name: math.log(low / values[name]) for name, (low, _) in model.hull.items() if 0.0 < values.get(name, 0.0) < low
    }


def _widened_upwards(
    model: LatencyModel,
    values: Amounts,
    prices: Amounts,
    value: float,
    widening: float,
    above: float,
    below: Mapping[str, float],
) -> float:
    """The least upper end among all networks with at least these features, without the half width's factor.

    Of the networks no further than f e-folds below the hull the cheapest has its low features raised to their edges
    over exp(f). That leaves a search over f, from `above`, below which nothing is gained, to where they are. There
    fixed + raised * exp(-f), the cost, times exp(widening * f) has one minimum, as every term of its logarithm's
    derivative grows; between two features' own folds it lies where raised * exp(-f) is
    widening * fixed / (1 - widening).
    """
    lowest = max(below.values(), default=0.0)
    at_its_own = value * math.exp(widening * max(above, min(lowest, UPWARD_FOLDS)))
    top = min(lowest, UPWARD_FOLDS)
    if top <= above:
        return at_its_own
    edges = {name: values[name] * prices[name] * math.exp(folds) for name, folds in below.items()}

    def at(folds: float) -> float:
        extra = sum(
            edges[name] * math.exp(-folds) - values[name] * prices[name] for name, own in below.items() if own > folds
        )
        return (value + extra) * math.exp(widening * folds)

    stops = sorted({above, top, *(own for own in below.values() if above < own < top)})
    best = min(at_its_own, *(at(folds) for folds in stops))
    for start, end in zip(stops, stops[1:], strict=False):
        raised = sum(edges[name] for name, own in below.items() if own >= end)
        fixed = value - sum(values[name] * prices[name] for name, own in below.items() if own >= end)
        if widening < 1 and raised > 0 and fixed > 0:
            turn = math.log(raised * (1 - widening) / (widening * fixed)) if widening > 0 else end
            if start < turn < end:
                best = min(best, at(turn))
    return best


@functools.cache
def _width_ratio(stated: float, wanted: float) -> float:
    normal = NormalDist()
    if stated == wanted or not 0 < stated < 1 or not 0 < wanted < 1:
        return 1.0
    return normal.inv_cdf(0.5 + wanted / 2) / normal.inv_cdf(0.5 + stated / 2)
