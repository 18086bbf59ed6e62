"""What of an operator list costs time: the features that latency models are fitted to and predict from."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

from edgekd.core.operators import Operator, OperatorList, features
from edgekd.records import LatencyModel

INNER_TILE = 8
"""Input channels (times kernel, or for each tap of it) are taken in steps of this many by XNNPACK's int8 kernels."""

TAP_TIERS = (3, 9, 25)
"""Depthwise kernels are written for so many taps (XNNPACK: 3, 9 and 25); fewer take as long as the next tier."""

MATRIX_KINDS = frozenset({"conv", "pointwise", "dense"})
"""Kinds that run as a matrix product, in panels of `tile` output channels."""


class Kernels(NamedTuple):
    """How a runtime's kernels see the work on a CPU.

    `tile`: output channels that are computed at once; None where MACs are counted as they are. `indirect`: a
    convolution walks its taps one by one, each in whole steps of `INNER_TILE` input channels (the indirect convolution
    of Dukhan 2019, arXiv:1907.02129); otherwise it is one long sum (im2col).
    """

    tile: int | None = None
    indirect: bool = False


def kernels_of(model: LatencyModel) -> Kernels:
    """The kernels that a model was fitted to."""
    return Kernels(model.tile, model.indirect)


COST_OF = {
    "macs": "ms_per_mmac",
    "bytes": "ms_per_mbyte",
    "count": "ms_per_op",
    "tiled": "ms_per_mtiled_mac",
    "positions": "ms_per_kposition",
    "panels": "ms_per_kpanel",
    "weights": "ms_per_mweight",
}
"""The field of `OperatorCost` that each cost feature's quantity is multiplied by."""


def cost_features(operators: OperatorList, scheme: str, kernels: Kernels) -> dict[str, float]:
    """The features of `edgekd.core.operators.features`; with a tile, those that see how kernels work as well.

    - `tiled.KIND`: millions of MACs with output channels rounded up to the tile, a depthwise kernel's taps to the next
      of `TAP_TIERS`, and the length of any other's sum, or that of each tap, to `INNER_TILE`. A student of 12 channels
      costs what one of 16 does where kernels are 16 wide: on students so narrow MACs alone mislead.
    - `positions.KIND`: thousands of output positions.
    - `panels.KIND`: thousands of output positions times tiles of output channels, of matrix products.
    - `weights.KIND`: millions of weights, each read once an inference.
    """
    values = features(operators, scheme)
    if kernels.tile is None:
        return values
    totals: dict[str, list[float]] = {}
    for operator in operators.operators:
        if operator.macs:
            tiled, positions, panels = _seen_by_kernels(operators, operator, kernels.tile, kernels.indirect)
            total = totals.setdefault(operator.kind, [0.0, 0.0, 0.0, 0.0])
            total[0] += tiled
            total[1] += positions
            total[2] += panels
            total[3] += operator.weights
    for kind, (tiled, positions, panels, weights) in totals.items():
        values[f"tiled.{kind}"] = tiled / 1e6
        values[f"positions.{kind}"] = positions / 1e3
        values[f"weights.{kind}"] = weights / 1e6
        if kind in MATRIX_KINDS:
            values[f"panels.{kind}"] = panels / 1e3
    return values


def _seen_by_kernels(
    operators: OperatorList, operator: Operator, tile: int, indirect: bool
) -> tuple[float, float, float]:
    """One operator's MACs in whole tiles, its output positions, and those times tiles of output channels."""
    positions = operator.macs / operator.weights
    channels = operator.biases or operators.tensors[operator.output] / positions
    tiles = math.ceil(channels / tile)
    if operator.kind == "depthwise":
        length = operator.taps if wide_depthwise(operator) else TAP_TIERS[bisect_left(TAP_TIERS, operator.taps)]
    else:
        sums = operator.taps if indirect else 1
        length = sums * INNER_TILE * math.ceil(operator.weights / channels / sums / INNER_TILE)
    return positions * tile * tiles * length, positions, positions * tiles


def wide_depthwise(operator: Operator) -> bool:
    """Whether a depthwise kernel has more taps than any fast kernel is written for."""
    return operator.kind == "depthwise" and operator.taps > TAP_TIERS[-1]


def fitted_features(operators: OperatorList, scheme: str, kernels: Kernels) -> dict[str, float]:
    """The cost features a model of those kernels is fitted to: few enough for thirty measurements."""
    values = cost_features(operators, scheme, kernels)
    if kernels.tile is None:
        return values
    tiled = {name.partition(".")[2] for name in values if name.startswith("tiled.")}
    return {
        name: amount
        for name, amount in values.items()
        if not name.startswith("macs.") and not (name.startswith("bytes.") and name.partition(".")[2] in tiled)
    }


def column_of(feature: str) -> str:
    """The column of a fit that a feature belongs to: some kinds share one price, or thirty measurements would not do.

    Weights cost the same in every kind, positions and panels in every matrix product.
    """
    quantity, _, kind = feature.partition(".")
    if quantity == "weights":
        return "weights"
    return quantity if quantity in ("positions", "panels") and kind in MATRIX_KINDS else feature
