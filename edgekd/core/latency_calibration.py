"""The latency model that follows from what sampled students took on a board."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgekd.core.latency_features import Kernels, fitted_features
from edgekd.core.latency_fit import fit_latency_model
from edgekd.core.latency_model import predict
from edgekd.core.latency_transfer import scaled
from edgekd.core.operators import OperatorList
from edgekd.records import HeldOut, LatencyModel

KERNELS = (Kernels(), *(Kernels(tile, indirect) for tile in (4, 8, 16, 32) for indirect in (False, True)))
"""What is considered: NEON, SSE and AVX-512 kernels compute 8, 16 or 32 channels at once, some 4."""


def fit_operator_model(
    lists: Sequence[OperatorList],
    latencies_ms: Sequence[float],
    about: LatencyModel,
    confidence: float = 0.9,
    among: Sequence[Kernels] = KERNELS,
) -> LatencyModel:
    """The latency model of measured students, with the kernels whose plain sum predicts best what was left out.

    Kinds of operators that none of them held keep the costs of `about`, scaled by how much slower or faster than
    `about` the measured ones were; the hull knows that they were not seen.

    Args:
        lists: the operators of each measured model.
        latencies_ms: the median latency of each.
        about: whose figures they are; its fitted fields are replaced.
        confidence: share of new models that the interval is to hold.
        among: the kernels to choose from.

    Raises:
        ValueError: fewer than 4 models.
    """

    def fit(kernels: Kernels, additive_only: bool) -> LatencyModel:
        rows = [fitted_features(operators, about.scheme, kernels) for operators in lists]
        seen = about.model_copy(update=kernels._asdict())
        return fit_latency_model(rows, latencies_ms, seen, confidence, additive_only)

    errors = {kernels: fit(kernels, additive_only=True).held_out_mape_percent or math.inf for kernels in among}
    best = fit(min(errors, key=lambda kernels: errors[kernels]), additive_only=False)
    scale = math.exp(float(np.median(_log_ratios(about, lists, latencies_ms)))) if about.costs else 1.0
    unseen = {kind: scaled(cost, scale) for kind, cost in about.costs.items() if kind not in best.costs}
    hull = best.hull | {f"count.{kind}": (0.0, 0.0) for kind in unseen}
    return best.model_copy(update={"costs": {**best.costs, **unseen}, "hull": hull})


def validate(
    model: LatencyModel, labels: Sequence[str], lists: Sequence[OperatorList], latencies_ms: Sequence[float]
) -> tuple[HeldOut, ...]:
    """The error table of models that took no part in the fit."""
    table = []
    for label, operators, measured in zip(labels, lists, latencies_ms, strict=True):
        estimate = predict(model, operators)
        table.append(
            HeldOut(
                label=label,
                measured_ms=measured,
                predicted_ms=estimate.value,
                low_ms=estimate.low,
                high_ms=estimate.high,
            )
        )
    return tuple(table)


def with_error_table(model: LatencyModel, table: tuple[HeldOut, ...]) -> LatencyModel:
    """The model with its held-out errors and the coverage of its interval."""
    errors = [abs(row.predicted_ms / row.measured_ms - 1) for row in table]
    return model.model_copy(
        update={
            "held_out": table,
            "held_out_mape_percent": 100 * float(np.mean(errors)),
            "interval_coverage": sum(row.covered for row in table) / len(table),
        }
    )


def _log_ratios(model: LatencyModel, lists: Sequence[OperatorList], latencies_ms: Sequence[float]) -> list[float]:
    return [
        math.log(measured / predict(model, operators).value)
        for operators, measured in zip(lists, latencies_ms, strict=True)
    ]
