"""Multipliers at which every runtime brings an integer sum onto its output's grid alike.

Behind a convolution or a matrix product stands `round(sum * m)`, m = input scale * weight scale / output scale.
XNNPACK and onnxruntime round once. TFLite's reference kernels and CMSIS-NN first round `sum * r`, r = m * 2**k in
[0.5, 1), then what that gives over 2**k (`MultiplyByQuantizedMultiplier`, tensorflow/lite/kernels/internal/common.cc).
A sum whose first rounding lands on a half of the second goes up though it lies below: one in 2**(k + 1) of them.

There is none where 1 / m is a little less than an even integer N. Halves lie at the sums (j + 1/2) / m, each just below
the integer (j + 1/2) N, and the next integer down is almost a whole one away, while the first rounding reaches down by
0.5 / r only. The room that is left, 1 - 0.5 / r, bounds how much less than N 1 / m may be, since the distance grows
with j. To get there a scale has to move by 2 / N at most: some tenths of a percent as a rule.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LESS = 0.7 * 2.0 / 512.0
"""How much less than N 1 / m is, over the room: seven tenths of what sums up to 256 steps from the zero point allow."""
_CLEAR = 2.5e-7
"""Least distance of 1 / m from the even integer, as a share of it: products of scales in float32 are off by 2e-7, and
the scale itself by 6e-8, for which 0.3 / 0.7 of this are left at the room's other end."""
_NARROWER = 1.002
"""A scale may also shrink by this: a weight of 127 steps then lies a quarter of a step beyond the last."""
_WIDER = 1.15
"""Most that a weight's scale grows; below `_COARSE` sums a step of the output, where more differ, `_MUCH_WIDER`."""
_COARSE = 64.0
_MUCH_WIDER = 1.5
Floats = NDArray[np.float64]


def alike_weight_scale(scale: Tensor, input_scale: Tensor, output_scale: Tensor) -> Tensor:
    """Weight scales (out,) at which all runtimes round a layer's sums alike.

    They grow by 15 % at most, where m is above 1/64 by half. Where that is not enough a scale stays as it is: for some
    m above 1/16, and some below 1/1000, of which one sum in 2000 or fewer is disputed.

    Args:
        scale: what the weights ask for, (out,) float32.
        input_scale: scalar.
        output_scale: scalar.
    """
    # In numpy, whose operations cost a third of torch's on vectors as short as these.
    asked = scale.detach().cpu().numpy().astype(np.float64)
    unit = float(output_scale) / float(input_scale)
    inverse = unit / asked
    even = np.maximum(2.0 * np.floor(inverse * (_NARROWER / 2.0)), 2.0)
    power = np.exp2(np.ceil(np.log2(even)))
    # 1 - N / power is the room for N: the largest N that leaves `_CLEAR`.
    last = power / (1.0 + power * (_CLEAR / _LESS))
    even = np.minimum(even, 2.0 * np.floor(last / 2.0))
    found = unit / (even - _LESS * (1.0 - even / power))
    wider = np.where(inverse < _COARSE, _MUCH_WIDER, _WIDER)
    settled = np.where((even >= 4.0) & (found <= wider * asked), found, asked)
    return torch.from_numpy(settled.astype(np.float32)).to(scale.device)


def alike_output_scale(unit: float, scale: float, shrink: bool = False) -> float:
    """The nearest output scale at which all runtimes round products of two tensors alike.

    Args:
        unit: what one step of the product is worth: the product of the inputs' scales.
        scale: the output's scale as it is.
        shrink: look for a narrower scale, because the range must not grow beyond a ceiling.

    Returns:
        A scale at most a half wider, or `scale` where there is none.
    """
    inverse = scale / unit
    even = 2 * math.floor(inverse * _NARROWER / 2) if shrink else 2 * math.ceil(inverse / _NARROWER / 2)
    while even >= 2 and inverse / _MUCH_WIDER <= even <= inverse * _MUCH_WIDER:
        less = _LESS * (1.0 - even / 2.0 ** math.ceil(math.log2(even)))
        if less >= _CLEAR * even:
            return float(np.float32(unit * (even - less)))
        even += -2 if shrink else 2
    return scale
