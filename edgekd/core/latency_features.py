"""What of an operator list costs time: the features that latency models are fitted to and predict from."""

from __future__ import annotations

import math

from edgekd.core.operators import Operator, OperatorList, features

INNER_TILE = 8
"""Input channels (times kernel) are taken in steps of this many by the int8 kernels of XNNPACK and ruy."""

TAP_TIERS = (3, 9, 25)
"""Depthwise kernels are written for so many taps (XNNPACK: 3, 9 and 25); fewer take as long as the next tier."""

MATRIX_KINDS = frozenset({"conv", "pointwise", "dense"})
"""Kinds that run as a matrix product, in panels of `tile` output channels."""

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


def cost_features(operators: OperatorList, scheme: str, tile: int | None) -> dict[str, float]:
    """The features of `edgekd.core.operators.features`; with a `tile`, those that see how kernels work as well.

    - `tiled.KIND`: millions of MACs with output channels rounded up to `tile`, a depthwise kernel's taps to the next
      of `TAP_TIERS`, and the length of any other's sum to `INNER_TILE`. A student of 12 channels costs what one of 16
      does where kernels are 16 wide: on students so narrow MACs alone mislead.
    - `positions.KIND`: thousands of output positions.
    - `panels.KIND`: thousands of output positions times tiles of output channels, of matrix products.
    - `weights.KIND`: millions of weights, each read once an inference.
    """
    values = features(operators, scheme)
    if tile is None:
        return values
    for operator in operators.operators:
        if operator.macs:
            for quantity, amount in _seen_by_kernels(operators, operator, tile).items():
                name = f"{quantity}.{operator.kind}"
                values[name] = values.get(name, 0.0) + amount
    return values


def _seen_by_kernels(operators: OperatorList, operator: Operator, tile: int) -> dict[str, float]:
    positions = operator.macs / operator.weights
    channels = operator.biases or operators.tensors[operator.output] / positions
    length, tiles = operator.weights / channels, math.ceil(channels / tile)
    if operator.kind == "depthwise":
        length = next((taps for taps in TAP_TIERS if length <= taps), length)
    else:
        length = INNER_TILE * math.ceil(length / INNER_TILE)
    found = {
        "tiled": positions * tile * tiles * length / 1e6,
        "positions": positions / 1e3,
        "weights": operator.weights / 1e6,
    }
    return found | ({"panels": positions * tiles / 1e3} if operator.kind in MATRIX_KINDS else {})


def wide_depthwise(operator: Operator) -> bool:
    """Whether a depthwise kernel has more taps than any fast kernel is written for."""
    return operator.kind == "depthwise" and operator.biases > 0 and operator.weights / operator.biases > TAP_TIERS[-1]


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


def column_of(feature: str) -> str:
    """The column of a fit that a feature belongs to: some kinds share one price, or thirty measurements would not do.

    Weights cost the same in every kind, positions and panels in every matrix product.
    """
    quantity, _, kind = feature.partition(".")
    if quantity == "weights":
        return "weights"
    return quantity if quantity in ("positions", "panels") and kind in MATRIX_KINDS else feature
