"""Scales at which no sum of two integers falls on the edge between two steps.

The runtimes add with different arithmetic: onnxruntime in float32, rounding ties to even; XNNPACK with multipliers of
21 bits, rounding ties up. They differ only at sums within some 1e-5 steps of an edge. There are just 65,536 pairs of
int8 values, so an output scale at which none of them lies there can be looked for, a fraction of a percent away.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgekd.nn.quantized.network import Grid

_CLEAR = 2e-5
"""Steps from an edge at which float32 sums of values up to 512 steps still round alike."""
_MOST_TRIES = 400
_WIDER = 12
"""How many 256ths of the output's range the input's may grow by, so that a leaky ReLU has no disputed ties."""
_MANTISSA = 2**16
"""Scales keep mantissas of sixteen bits (see `ActivationQuantizer`)."""
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def untied_scale(first: Grid, second: Grid, output: Grid, shrink: bool = False) -> float:
    """A scale for `output`, at most 1.3 % wider, at which all runtimes round every sum of two int8 values alike.

    Args:
        first: the grid of one summand, int8.
        second: of the other.
        output: of their sum; its zero point stays.
        shrink: look for a narrower scale, because the range must not grow beyond a ceiling.

    Returns:
        The nearest such scale, or where there is none within reach the one with the fewest sums that differ.
    """
    mantissa, exponent = math.frexp(output.scale)
    whole = round(mantissa * _MANTISSA)
    least, best = math.inf, output.scale
    for tried in range(_MOST_TRIES):
        scale = math.ldexp((whole - tried if shrink else whole + tried) / _MANTISSA, exponent)
        found = disputed_sums(first, second, Grid(scale, output.zero_point))
        if found < least:
            least, best = found, scale
        if not found:
            break
    return best


def leaky_steps(source: float, output: float, slope: float) -> tuple[float, float]:
    """The input's scale and the slope at which XNNPACK computes a leaky ReLU as it stands.

    Its kernel multiplies steps by whole 256ths (qs8-vlrelu): the ratio of the scales where they are positive, that
    times the slope elsewhere.

    Args:
        source: the input's scale; its range grows by 11/256 of the output's at most.
        output: the output's scale, which stays.
        slope: of the values below 0.

    Returns:
        Scale and slope.
    """
    least = math.ceil(256 * source / output)
    # A multiplier of 3 modulo 4 has its one tie, at +128 steps, where half up and half to even agree; 256 has none.
    ratios = [ratio for ratio in range(least, least + _WIDER) if ratio % 4 == 3 or ratio % 256 == 0]

    def multiplier(ratio: int) -> int:
        """The nearest odd number, since even ones have a tie every few steps; 0, which has none, where it is nearer."""
        exact = slope * ratio
        return 0 if round(exact) == 0 else 2 * math.floor(exact / 2) + 1

    def cost(ratio: int) -> tuple[bool, float]:
        """Below 0 a multiplier of 1 modulo 4 has no disputed tie, another odd one has it at -128 steps alone."""
        found = multiplier(ratio)
        return bool(found) and found % 4 != 1, abs(found - slope * ratio)

    ratio = min(ratios, key=cost)
    return output * ratio / 256, multiplier(ratio) / ratio


def disputed_sums(first: Grid, second: Grid, output: Grid) -> int:
    """How many of the 65,536 pairs of int8 values have a sum that two runtimes may round differently."""
    steps = np.arange(-128, 128)
    left, right = steps - first.zero_point, steps - second.zero_point
    exact = left[:, None] * (first.scale / output.scale) + right[None, :] * (second.scale / output.scale)
    from_edge = np.abs(exact - np.floor(exact) - 0.5)
    inside = (exact > -129 - output.zero_point) & (exact < 128 - output.zero_point)
    close = from_edge < _CLEAR
    # Only sums near an edge can differ: the multipliers' error is below 1e-4 steps.
    rows, columns = np.nonzero(inside & (from_edge < 1e-4))
    differ = _xnnpack_sum(left[rows], right[columns], first, second, output) != np.rint(exact[rows, columns])
    return int(np.count_nonzero(differ | close[rows, columns]))


def _xnnpack_sum(left: Integers, right: Integers, first: Grid, second: Grid, output: Grid) -> Integers:
    """Rounded sums in steps of the output, as XNNPACK's qs8-vadd computes them (src/microparams-init.c)."""
    ratios = [np.float32(grid.scale) / np.float32(output.scale) for grid in (first, second)]
    shift = 20 - (math.frexp(float(max(ratios)))[1] - 1)
    multipliers = [int(np.rint(math.ldexp(float(ratio), shift))) for ratio in ratios]
    accumulated: Integers = left.astype(np.int64) * multipliers[0] + right.astype(np.int64) * multipliers[1]
    rounded: Integers = (accumulated + (1 << (shift - 1))) >> shift
    return rounded
