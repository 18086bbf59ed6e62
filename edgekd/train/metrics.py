"""By what models are judged: accuracy for classes, and what takes its place for independent labels and for values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from edgekd.core.statistics import paired_difference_interval
from edgekd.tasks import METRICS_OF, MetricName, Outputs

RESAMPLES = 400


@dataclass(frozen=True)
class Metric:
    """A figure of merit from a model's outputs (N, K) and the labels.

    Args:
        name: as the task spells it.
        words: the same for people.
        better: which way.
        value: (outputs, labels) to the figure.
    """

    name: MetricName
    words: str
    better: Literal["higher", "lower"]
    value: Callable[[Tensor, Tensor], float]

    def score(self, outputs: Tensor, labels: Tensor) -> float:
        """The figure with its sign turned where lower is better, so that a higher score is always better."""
        return self.of_score(self.value(outputs, labels))

    def of_score(self, score: float) -> float:
        """The figure of a score, and the other way round."""
        return score if self.better == "higher" else -score


def metric_of(outputs: Outputs, name: MetricName | None = None) -> Metric:
    """The metric of that name, or the first for this kind of outputs."""
    return METRICS[name or METRICS_OF[outputs][0]]


def accuracy(outputs: Tensor, labels: Tensor) -> float:
    """Share of inputs whose highest logit is the label's: (N, K), (N,)."""
    return float((outputs.argmax(1) == labels).float().mean())


def label_accuracy(outputs: Tensor, labels: Tensor) -> float:
    """Share of right decisions at probability 1/2, over all labels: (N, K) logits, (N, K) of 0 and 1."""
    return float(((outputs > 0) == (labels > 0.5)).float().mean())


def f1(outputs: Tensor, labels: Tensor) -> float:
    """Mean over the labels of 2 TP / (2 TP + FP + FN) at probability 1/2; labels without a positive are left out."""
    said, true = outputs > 0, labels > 0.5
    hits, errors = (said & true).sum(0).double(), (said ^ true).sum(0).double()
    return _mean((2 * hits / (2 * hits + errors).clamp(min=1))[true.any(0)])


def average_precision(outputs: Tensor, labels: Tensor) -> float:
    """Mean over the labels of the mean precision at each positive, by falling logit; ties in the order of the inputs.

    Labels without a positive are left out.
    """
    found = []
    for scores, true in zip(outputs.T, (labels > 0.5).T, strict=True):
        if true.any():
            ordered = true[scores.argsort(descending=True, stable=True)].double()
            precision = ordered.cumsum(0) / torch.arange(1, len(ordered) + 1)
            found.append((precision * ordered).sum() / ordered.sum())
    return _mean(torch.stack(found)) if found else math.nan


def r2(outputs: Tensor, labels: Tensor) -> float:
    """Mean over the outputs of 1 - sum (y - s)^2 / sum (y - mean y)^2; outputs with one value only are left out."""
    labels = labels.double()
    residual = (labels - outputs.double()).square().sum(0)
    spread = (labels - labels.mean(0)).square().sum(0)
    return _mean((1 - residual / spread)[spread > 0])


def mae(outputs: Tensor, labels: Tensor) -> float:
    """Mean over inputs and outputs of |y - s|, in the labels' units."""
    return float((outputs.double() - labels.double()).abs().mean())


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan


METRICS: Mapping[MetricName, Metric] = {
    "accuracy": Metric("accuracy", "accuracy", "higher", accuracy),
    "f1": Metric("f1", "F1, mean over the labels", "higher", f1),
    "label_accuracy": Metric("label_accuracy", "accuracy, mean over the labels", "higher", label_accuracy),
    "average_precision": Metric("average_precision", "average precision, mean over the labels", "higher",
                                average_precision),
    "r2": Metric("r2", "R2, mean over the values", "higher", r2),
    "mae": Metric("mae", "mean absolute error", "lower", mae),
}  # fmt: skip

CLOSENESS: Mapping[Outputs, tuple[str, Callable[[Tensor, Tensor], float]]] = {
    "classes": (
        "share of inputs given the same class",
        lambda a, b: float((a.argmax(1) == b.argmax(1)).float().mean()),
    ),
    "multi_label": ("share of labels decided alike", lambda a, b: float(((a > 0) == (b > 0)).float().mean())),
    "regression": ("R2 of the student's values for the teacher's", r2),
}
"""Fidelity of a student (first) to its teacher, whatever the truth: in words, and of outputs (N, K) of both."""


def gain_interval(metric: Metric, first: Tensor, second: Tensor, labels: Tensor) -> tuple[float, float]:
    """95 % interval, paired over inputs, of how much better the first model's outputs are than the second's.

    Of accuracies by Tango's score (as `paired_difference_interval`); of other metrics the percentiles of 400 bootstrap
    resamples of the inputs (Efron 1979), with a seed of its own. Above 0 is better, whichever way the metric goes.
    """
    if metric.name == "accuracy":
        return paired_difference_interval((first.argmax(1) == labels).tolist(), (second.argmax(1) == labels).tolist())
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(RESAMPLES):
        rows = torch.randint(len(labels), (len(labels),), generator=generator)
        found.append(metric.score(first[rows], labels[rows]) - metric.score(second[rows], labels[rows]))
    kept = [value for value in found if math.isfinite(value)] or [math.nan]
    low, high = np.quantile(kept, (0.025, 0.975))
    return float(low), float(high)
