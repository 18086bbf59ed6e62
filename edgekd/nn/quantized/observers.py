"""Which range an activation's grid should span: read off a histogram of what the float network computes.

`ema` averages each batch's extremes, as QAT does. The others see all batches: `min-max` spans every value seen;
`percentile` leaves out the rarest 0.01 %; `mse` takes the range of least squared error (Banner et al. 2019,
arXiv:1810.05723); `entropy` the one whose rounded histogram says most of the original (Kullback-Leibler divergence,
as in TensorRT: Migacz 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.nn.evaluation import evaluating
from edgekd.nn.quantized.model import QuantizedModel

Observer = Literal["ema", "min-max", "percentile", "mse", "entropy"]
OBSERVERS: tuple[Observer, ...] = get_args(Observer)
_BINS = 2048
_LEFT_OUT = 1e-4
"""Share of the values that `percentile` leaves out, half at either end."""
_SHRINKS = 50
"""How many places, from the full range down to a fiftieth, `mse` and `entropy` try for each end."""
_LEVELS = 256
Floats = NDArray[np.float64]


@dataclass
class Histogram:
    """Counts (bins,) over `edges` (bins + 1,) that span every value."""

    counts: Floats
    edges: Floats

    @property
    def centres(self) -> Floats:
        """The middle of each bin."""
        middle: Floats = (self.edges[:-1] + self.edges[1:]) / 2
        return middle


@torch.no_grad()
def calibrate(model: QuantizedModel, batches: Sequence[Tensor], observer: Observer = "ema") -> None:
    """Set the model's ranges, once and for all its tensors, from batches (N, ...) of inputs.

    `ema` reads values with all rounding before them; the others read the float network's.
    """
    if observer == "ema":
        model.reset_ranges()
        model.calibrate(batches)
        return
    histograms = _histograms(model, batches)
    for key, histogram in histograms.items():
        model.set_range(key, *_CHOOSE[observer](histogram))
    model.settle()


def _histograms(model: QuantizedModel, batches: Sequence[Tensor]) -> dict[str, Histogram]:
    """One histogram per grid, over the tensors whose values set its range."""
    extremes: dict[str, tuple[float, float]] = {}
    for key, values in _members(model, batches):
        low, high = (float(value) for value in torch.aminmax(values))
        before = extremes.get(key, (low, high))
        extremes[key] = (min(before[0], low), max(before[1], high))
    found = {
        key: Histogram(np.zeros(_BINS), np.linspace(low, max(high, low + 1e-12), _BINS + 1))
        for key, (low, high) in extremes.items()
    }
    for key, values in _members(model, batches):
        edges = found[key].edges
        found[key].counts += torch.histc(values.float().cpu(), _BINS, float(edges[0]), float(edges[-1])).numpy()
    return found


def _members(model: QuantizedModel, batches: Iterable[Tensor]) -> Iterable[tuple[str, Tensor]]:
    grids = model.grid_members()
    for batch in batches:
        with evaluating(model), model.unrounded():
            values = model.activations(batch)
        for tensor, key in grids.items():
            yield key, values[tensor]


def _min_max(histogram: Histogram) -> tuple[float, float]:
    return float(histogram.edges[0]), float(histogram.edges[-1])


def _percentile(histogram: Histogram) -> tuple[float, float]:
    below = np.cumsum(histogram.counts) / histogram.counts.sum()
    first = int(np.searchsorted(below, _LEFT_OUT / 2, side="right"))
    last = int(np.searchsorted(below, 1 - _LEFT_OUT / 2))
    return float(histogram.edges[first]), float(histogram.edges[min(last + 1, _BINS)])


def _least(histogram: Histogram, cost: Callable[[float, float], float]) -> tuple[float, float]:
    """The range of least cost: each end shrunk towards 0 by itself, the farther one first."""
    low, high = min(float(histogram.edges[0]), 0.0), max(float(histogram.edges[-1]), 0.0)
    shares = np.linspace(1.0, 1.0 / _SHRINKS, _SHRINKS)
    for end in ("high", "low") if high >= -low else ("low", "high"):
        if end == "high":
            high = min((high * share for share in shares), key=lambda tried: cost(low, tried))
        else:
            low = min((low * share for share in shares), key=lambda tried: cost(tried, high))
    return low, high


def _mse(histogram: Histogram) -> tuple[float, float]:
    centres = histogram.centres

    def error(low: float, high: float) -> float:
        scale = max(high - low, 1e-12) / (_LEVELS - 1)
        rounded = low + scale * np.clip(np.rint((centres - low) / scale), 0, _LEVELS - 1)
        return float(histogram.counts @ (centres - rounded) ** 2)

    return _least(histogram, error)


def _entropy(histogram: Histogram) -> tuple[float, float]:
    # Zeros of a ReLU stand exactly on the grid whatever the range, and would drown everything else.
    counts = histogram.counts.copy()
    counts[np.searchsorted(histogram.edges, 0.0, side="right").clip(1, _BINS) - 1] = 0
    if counts.sum() == 0:
        return _min_max(histogram)
    centres = histogram.centres

    def divergence(low: float, high: float) -> float:
        inside = (centres >= low) & (centres <= high)
        if inside.sum() < _LEVELS / 2:
            return float("inf")
        reference = counts[inside].copy()
        reference[0] += counts[centres < low].sum()
        reference[-1] += counts[centres > high].sum()
        level = np.clip(((centres[inside] - low) / max(high - low, 1e-12) * _LEVELS).astype(int), 0, _LEVELS - 1)
        filled = counts[inside] > 0
        totals = np.bincount(level, counts[inside], _LEVELS)
        shares = np.maximum(np.bincount(level, filled, _LEVELS), 1)
        approximation = np.where(filled, (totals / shares)[level], 0.0)
        if approximation.sum() == 0:
            return float("inf")
        p, q = reference / reference.sum(), approximation / approximation.sum()
        mask = p > 0
        return float(np.sum(p[mask] * np.log(p[mask] / np.maximum(q[mask], 1e-10))))

    return _least(histogram, divergence)


_CHOOSE: dict[Observer, Callable[[Histogram], tuple[float, float]]] = {
    "min-max": _min_max,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
