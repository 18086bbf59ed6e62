"""Which of two models is faster: symmetric, indifferent to drift, and seldom wrong where they are alike."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.comparison import LOOKS, median_ratio, turns

MEDIANS = st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), min_size=2, max_size=20)


@given(MEDIANS)
def test_the_other_way_round_is_the_reciprocal(pairs):
    first, second = zip(*pairs, strict=True)
    ahead, back = median_ratio(first, second), median_ratio(second, first)
    assert ahead.ratio == pytest.approx(1 / back.ratio)
    assert ahead.interval == pytest.approx((1 / back.interval[1], 1 / back.interval[0]))
    opposite = {"faster": "slower", "slower": "faster", "undecided": "undecided"}
    if 1 not in (*ahead.interval, *back.interval):
        assert back.verdict == opposite[ahead.verdict]


@given(MEDIANS, st.lists(st.floats(0.1, 10), min_size=20, max_size=20))
def test_what_both_of_a_pair_share_drops_out(pairs, drift):
    first, second = zip(*pairs, strict=True)
    drifted = median_ratio(
        [a * factor for a, factor in zip(first, drift, strict=False)],
        [b * factor for b, factor in zip(second, drift, strict=False)],
    )
    assert drifted.ratio == pytest.approx(median_ratio(first, second).ratio)


@given(st.integers(1, 50))
def test_turns_favour_neither(pairs):
    order = turns(pairs)
    assert order.count("A") == order.count("B") == pairs
    assert turns(4) == "ABBAABBA"
    places = {name: [place for place, who in enumerate(order) if who == name] for name in "AB"}
    if pairs % 2 == 0:
        assert sum(places["A"]) == sum(places["B"])


def test_alike_models_are_told_apart_at_most_one_time_in_twenty():
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(600):
        logs = generator.normal(0.0, 0.05, (40, 2))
        for pairs in (*LOOKS, 40):
            found = median_ratio(np.exp(logs[:pairs, 0]).tolist(), np.exp(logs[:pairs, 1]).tolist())
            if found.verdict != "undecided":
                wrong += 1
                break
    assert wrong / 600 <= 0.06


def test_a_tenth_is_found_in_twenty_pairs():
    generator = np.random.default_rng(1)
    logs = generator.normal(0.0, 0.05, (20, 2))
    found = median_ratio((0.9 * np.exp(logs[:, 0])).tolist(), np.exp(logs[:, 1]).tolist())
    assert found.verdict == "faster"
    assert found.interval[0] < 0.9 < found.interval[1]


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_what_is_no_pair_is_refused(first, second):
    with pytest.raises(ValueError, match="pairs of medians"):
        median_ratio(first, second)


def test_one_pair_decides_nothing():
    found = median_ratio([1.0], [100.0])
    assert (found.verdict, found.interval) == ("undecided", None)
    assert math.isclose(found.ratio, 0.01)
