"""Calibrating a board: which students to measure there, and the latency model that follows from what they took."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.core.architecture import Architecture, Shape, operator_list
from edgekd.core.latency_fit import additive_shares, fit_latency_model, held_out_log_errors
from edgekd.core.latency_model import cost_features, predict
from edgekd.core.nonnegative import Array
from edgekd.core.operators import OperatorList
from edgekd.core.spaces import SPACES
from edgekd.core.statistics import student_t
from edgekd.records import HeldOut, LatencyModel, OperatorCost
from edgekd.records.profile import OPERATOR_KINDS

TILES = (None, 4, 8, 16, 32)
"""Widths of kernels considered: NEON, SSE and AVX-512 kernels compute 8, 16 or 32 channels at once, some 4."""

NATIVE: dict[str, tuple[Shape, ...]] = {
    "ds-cnn": ((1, 1, 64), (3, 1, 128), (6, 1, 128), (6, 1, 256), (9, 1, 512)),
    "inverted-residual": ((1, 28, 28), (3, 32, 32), (1, 48, 48), (3, 64, 64), (3, 96, 96)),
}
OUTPUTS = (2, 10, 50)
DRAWN_FOR_ONE = 12
"""So many students are drawn for each that is chosen, so that the chosen ones can lie far apart."""

HELD_OUT_EVERY = 3
TRANSFER_TERMS_FROM = 8
"""Measurements from which a carried-over model gets terms of its own beside a scale."""


@dataclass(frozen=True)
class SampledStudent:
    """A student to measure: its space, the task's input shape, its choices and outputs."""

    space: str
    native: Shape
    choices: Mapping[str, int]
    outputs: int

    @property
    def label(self) -> str:
        """All of it on one line."""
        size = "x".join(str(side) for side in self.native)
        chosen = " ".join(f"{name}={value}" for name, value in self.choices.items())
        return f"{self.space} input={size} {chosen} outputs={self.outputs}"

    def architecture(self) -> Architecture:
        """The network."""
        return SPACES[self.space].architecture(self.choices, self.native, self.outputs)


def sampled_students(
    count: int, seed: int, natives: Mapping[str, Sequence[Shape]] = NATIVE
) -> tuple[SampledStudent, ...]:
    """Students of all spaces, far apart from one another in the work they hold; any first few of them are, too.

    Each next one is that of the drawn students whose nearest neighbour among the chosen is farthest, in the
    logarithms of MACs by operator kind (farthest-point sampling: Gonzalez 1985).
    """
    random = np.random.default_rng(seed)
    drawn = [_draw(random, sorted(natives)[index % len(natives)], natives) for index in range(count * DRAWN_FOR_ONE)]
    lists = [operator_list(student.architecture()) for student in drawn]
    at = np.array([[math.log1p(1e3 * value) for value in _work(operators)] for operators in lists])
    at = (at - at.mean(axis=0)) / (at.std(axis=0) + 1e-9)
    chosen = [int(np.argsort(((at - np.median(at, axis=0)) ** 2).sum(axis=1))[0])]
    distance = np.full(len(drawn), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, ((at - at[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(np.argmax(distance)))
    return tuple(drawn[index] for index in chosen)


def _draw(random: np.random.Generator, name: str, natives: Mapping[str, Sequence[Shape]]) -> SampledStudent:
    native = natives[name][int(random.integers(len(natives[name])))]
    dimensions = SPACES[name].dimensions(native)
    choices = {key: int(random.choice(values)) for key, values in dimensions.items()}
    return SampledStudent(name, native, choices, int(random.choice(OUTPUTS)))


def _work(operators: OperatorList) -> list[float]:
    by_kind = dict.fromkeys(OPERATOR_KINDS, 0.0)
    for operator in operators.operators:
        by_kind[operator.kind] += operator.macs / 1e6
    return [*by_kind.values(), len(operators.operators) / 1e3]


def trimmed_level(rounds_ms: Sequence[float]) -> tuple[float, float]:
    """The level of interleaved rounds, in ms, and how far it can be trusted, a fraction.

    What else a machine does only ever adds time, so the level is the mean of the faster half of the rounds; the
    doubt is how far the slowest of that half lies above the fastest. A single round is doubted wholly.
    """
    ordered = sorted(rounds_ms)
    half = ordered[: math.ceil(len(ordered) / 2)]
    if len(ordered) < 2:
        return ordered[0], math.inf
    return float(np.mean(half)), max(half[-1], ordered[1]) / ordered[0] - 1


def fit_operator_model(
    lists: Sequence[OperatorList],
    latencies_ms: Sequence[float],
    about: LatencyModel,
    confidence: float = 0.9,
    tiles: Sequence[int | None] = TILES,
) -> LatencyModel:
    """The additive latency model of measured students, with the tile that predicts best what was left out.

    Kinds of operators that none of them held keep the costs of `about`, scaled by how much slower or faster than
    `about` the measured ones were; the hull knows that they were not seen.

    Args:
        lists: the operators of each measured model.
        latencies_ms: the median latency of each.
        about: whose figures they are; its fitted fields are replaced.
        confidence: share of new models that the interval is to hold.
        tiles: the widths to choose from.

    Raises:
        ValueError: fewer than 4 models.
    """
    fits = []
    for tile in tiles:
        rows = [fitted_features(operators, about.scheme, tile) for operators in lists]
        fit = fit_latency_model(rows, latencies_ms, about.model_copy(update={"tile": tile}), confidence)
        fits.append(fit)
    best = min(fits, key=lambda fit: fit.held_out_mape_percent or math.inf)
    scale = math.exp(float(np.median(_log_ratios(about, lists, latencies_ms)))) if about.costs else 1.0
    unseen = {kind: _scaled(cost, scale) for kind, cost in about.costs.items() if kind not in best.costs}
    hull = best.hull | {f"count.{kind}": (0.0, 0.0) for kind in unseen}
    return best.model_copy(update={"costs": {**best.costs, **unseen}, "hull": hull})


def fitted_features(operators: OperatorList, scheme: str, tile: int | None) -> dict[str, float]:
    """The cost features a model of that tile is fitted to: few enough for thirty measurements."""
    values = cost_features(operators, scheme, tile)
    if tile is None:
        return values
    tiled = {name.partition(".")[2] for name in values if name.startswith("tiled.")}
    return {
        name: amount
        for name, amount in values.items()
        if not name.startswith("macs.") and not (name.startswith("bytes.") and name.partition(".")[2] in tiled)
    }


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


def transfer_latency_model(
    base: LatencyModel,
    lists: Sequence[OperatorList],
    latencies_ms: Sequence[float],
    about: LatencyModel,
    confidence: float = 0.9,
) -> LatencyModel:
    """Another board's model carried over with few measurements.

    It gets a scale, and from eight measurements on an overhead and a cost per operator of its own. The half width is
    Student's t times the spread of the leave-one-out errors: with three measurements wide, with ten near that of a
    full fit. The base's hull and widening stay.

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
    errors = held_out_log_errors(_carried, columns, latencies)
    half = student_t(len(errors) - 1, confidence) * float(np.sqrt((errors**2).mean()))
    scale, overhead, per_operator = _carried_terms(columns, latencies)
    costs = {
        kind: _scaled(cost, scale).model_copy(update={"ms_per_op": cost.ms_per_op * scale + per_operator})
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
            "samples": len(latencies),
            "held_out_mape_percent": float(np.abs(np.exp(-errors) - 1).mean() * 100),
        }
    )


def _carried(columns: Array, latencies: Array) -> Callable[[Array], Array]:
    terms = np.array(_carried_terms(columns, latencies))
    floor = 1e-3 * float(latencies.min())
    return lambda new: np.maximum(new @ terms, floor)


def _carried_terms(columns: Array, latencies: Array) -> tuple[float, float, float]:
    """Scale, overhead and cost per operator."""
    if len(latencies) < TRANSFER_TERMS_FROM:
        return math.exp(float(np.median(np.log(latencies / columns[:, 0])))), 0.0, 0.0
    scale, overhead, per_operator = additive_shares(columns, latencies)
    return float(scale), float(overhead), float(per_operator)


def _log_ratios(model: LatencyModel, lists: Sequence[OperatorList], latencies_ms: Sequence[float]) -> list[float]:
    return [
        math.log(measured / predict(model, operators).value)
        for operators, measured in zip(lists, latencies_ms, strict=True)
    ]


def _scaled(cost: OperatorCost, scale: float) -> OperatorCost:
    return OperatorCost(**{name: value * scale for name, value in cost.model_dump().items()})
