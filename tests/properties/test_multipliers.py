"""Both roundings of an integer sum, brute force: at settled multipliers one and two give the same."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.nn.quantized.multipliers import alike_output_scale, alike_weight_scale

REACH = 255
"""Farthest an output lies from its zero point, in steps."""
scales = st.floats(1e-3, 1.0).map(lambda value: float(np.float32(value)))


def rounded_twice(sums, multiplier):
    """TFLite's reference kernels and CMSIS-NN: a rounding doubling product of 32 bits, then a rounding shift."""
    factor, exponent = math.frexp(multiplier)
    return shifted(sums, round(factor * 2**31), -exponent)


def shifted(sums, multiplier, shift):
    products = np.abs(sums) * multiplier
    # Half up for positive products, half down for negative ones, that is away from 0 but for exact halves.
    first = (products + np.where(sums >= 0, 1 << 30, (1 << 30) - 1)) >> 31
    if shift <= 0:
        return np.sign(sums) * (first << -shift)
    return np.sign(sums) * ((first + (1 << (shift - 1))) >> shift)


def rounded_once(sums, *factors):
    """XNNPACK and onnxruntime: float32 scales multiplied, then the sum, halves to even."""
    multiplier = np.float32(1.0)
    for factor in factors:
        multiplier = np.float32(multiplier * np.float32(factor))
    return np.rint(sums.astype(np.float32) * multiplier).astype(np.int64)


def reachable(multiplier):
    return np.arange(-math.ceil(REACH / multiplier), math.ceil(REACH / multiplier) + 1)


def check(sums, found, once):
    assert np.array_equal(found, once), sums[found != once][:5]


@settings(max_examples=60, deadline=None)
@given(source=scales, output=scales, inverse=st.floats(8.0, 1000.0))
def test_settled_weights_round_alike_and_stay_near(source, output, inverse):
    asked = torch.tensor([output / source / inverse], dtype=torch.float32)
    found = alike_weight_scale(asked, torch.tensor(source), torch.tensor(output))
    assert 0.997 < float(found / asked) <= (1.5 if inverse < 64 else 1.15) + 1e-6
    assert torch.equal(alike_weight_scale(found, torch.tensor(source), torch.tensor(output)), found)
    if torch.equal(found, asked):
        assert inverse < 10
        return
    multiplier = source * float(found) / output
    sums = reachable(multiplier)
    once = rounded_once(sums, source, float(found), 1 / np.float32(output))
    check(sums, rounded_twice(sums, multiplier), once)
    check(sums, np.rint(sums * multiplier).astype(np.int64), once)


@settings(max_examples=60, deadline=None)
@given(first=scales, second=scales, inverse=st.floats(4.0, 600.0), shrink=st.booleans())
def test_settled_products_round_alike(first, second, inverse, shrink):
    asked = first * second * inverse
    found = alike_output_scale(first * second, asked, shrink)
    if found == asked:
        assert inverse < 12
        return
    assert found <= asked * 1.003 if shrink else found >= asked * 0.997
    sums = reachable(first * second / found)
    check(sums, rounded_twice(sums, first * second / found), rounded_once(sums, first, second, 1 / np.float32(found)))


def test_other_multipliers_do_not():
    sums = reachable(1 / 200.5)
    differ = rounded_twice(sums, 1 / 200.5) != rounded_once(sums, 1 / 200.5)
    # One sum in 2 ** 8, since 1 / 200.5 lies between 2 ** -8 and 2 ** -7.
    assert 0.5 / 256 < differ.mean() < 2 / 256


def test_what_no_step_was_observed_for_stays():
    asked = torch.tensor([0.01, 1e-9])
    assert torch.equal(alike_weight_scale(asked, torch.tensor(1e-3), torch.tensor(1.0))[1:], asked[1:])
