"""Verdicts over several boards, and MLPerf's estimate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.statistics import early_stopping_estimate
from edgekd.core.units import join_units
from edgekd.records import Verdict

OUTCOMES = ("met", "missed", "inconclusive", "not_measured")


@st.composite
def verdicts(draw):
    outcome = draw(st.sampled_from(OUTCOMES))
    if outcome == "not_measured":
        return Verdict(constraint="latency_p90_ms", limit=5.0, outcome=outcome, reason="another board")
    value = draw(st.floats(0.1, 10))
    width = draw(st.floats(0, 1))
    return Verdict(
        constraint="latency_p90_ms",
        limit=5.0,
        value=value,
        interval=(value - width, value + width),
        margin=5.0 - value,
        basis="measured",
        outcome=outcome,
    )


@given(st.lists(verdicts(), min_size=1, max_size=6))
def test_a_verdict_over_units_is_met_only_where_every_unit_meets_it(each):
    (joined,) = join_units([(f"unit{i}", [verdict]) for i, verdict in enumerate(each)])
    outcomes = {verdict.outcome for verdict in each}
    assert (joined.outcome == "met") == (outcomes == {"met"})
    assert (joined.outcome == "missed") == ("missed" in outcomes)
    for verdict in each:
        if verdict.interval is not None:
            assert joined.interval[0] <= verdict.interval[0] <= verdict.interval[1] <= joined.interval[1]
            assert joined.margin <= verdict.margin


def test_the_spread_over_units_is_told():
    def unit(value):
        return Verdict(
            constraint="latency_p90_ms",
            limit=5.0,
            value=value,
            interval=(value - 0.1, value + 0.1),
            margin=5.0 - value,
            basis="measured",
            outcome="met",
        )

    (joined,) = join_units([("a", [unit(3.0)]), ("b", [unit(3.3)])])
    assert (joined.value, joined.interval) == (3.3, (2.9, 3.4))
    assert "2 units: 3 to 3.3 ms" in joined.reason
    assert "10.0 %" in joined.reason
    with pytest.raises(ValueError, match="same constraints"):
        join_units([])


def test_early_stopping_takes_the_largest_of_64_and_needs_as_many():
    samples = np.arange(64.0)
    assert early_stopping_estimate(samples[:63], 90) is None
    assert early_stopping_estimate(samples, 90) == 63.0
    # MLCommons' table for p99: 662 queries at least.
    assert early_stopping_estimate(np.arange(661.0), 99) is None
    assert early_stopping_estimate(np.arange(662.0), 99) == 661.0


@given(st.integers(64, 20_000), st.integers(0, 2**31))
def test_early_stopping_bounds_the_percentile_from_above(n, seed):
    samples = np.random.default_rng(seed).exponential(size=n)
    estimate = early_stopping_estimate(samples, 90)
    assert estimate >= np.percentile(samples, 90)
    assert np.mean(samples > estimate) <= 0.1


def test_early_stopping_holds_in_99_of_100_cases():
    random = np.random.default_rng(5)
    truth = -np.log(0.1)
    held = [early_stopping_estimate(random.exponential(size=1024), 90) >= truth for _ in range(2000)]
    assert np.mean(held) >= 0.98
