"""Leaky ReLUs: scales and slopes at which half up and half to even agree."""

import numpy as np
import pytest

from edgekd.nn.quantized.ties import leaky_steps


@pytest.mark.parametrize("slope", [0.01, 0.1, 0.1009, 0.2, 0.3])
@pytest.mark.parametrize("ratio", [0.51, 1.0, 1.37, 1.9961, 2.1572, 2.1679])
def test_no_runtime_disputes_more_than_one_step(ratio: float, slope: float) -> None:
    scale, settled = leaky_steps(ratio, 1.0, slope)
    steps = np.arange(-255, 256)
    positive, negative = round(256 * scale), round(256 * scale * settled)
    exact = np.where(steps >= 0, positive, negative) * steps / 256
    half_up, half_to_even = np.floor(exact + 0.5), np.rint(exact)
    assert np.count_nonzero(half_up != half_to_even) <= 1
    assert ratio <= scale <= ratio + 13 / 256
    assert abs(settled - slope) * 256 * scale <= 1 + 1e-9
