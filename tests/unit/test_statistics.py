import math

import numpy as np
import pytest
from scipy import stats

from edgekd.core.statistics import (
    at_95_percent,
    least_samples,
    mean_interval,
    paired_difference_interval,
    percentile,
    percentile_interval,
    proportion_interval,
    student_t,
)
from edgekd.records import Estimate


def test_least_samples_are_those_of_the_early_stopping_rule() -> None:
    assert [least_samples(percent) for percent in (50, 90, 95, 97, 99)] == [11, 64, 130, 219, 662]


@pytest.mark.parametrize("confidence", [0.95, 0.99])
@pytest.mark.parametrize("degrees_of_freedom", [1, 2, 3, 4, 10, 11, 49, 500])
def test_student_t_agrees_with_scipy(degrees_of_freedom: int, confidence: float) -> None:
    expected = stats.t.ppf(0.5 + confidence / 2, degrees_of_freedom)
    assert student_t(degrees_of_freedom, confidence) == pytest.approx(expected, rel=1e-9)


def test_student_t_needs_a_degree_of_freedom() -> None:
    with pytest.raises(ValueError, match="degree of freedom"):
        student_t(0)


def test_percentile_is_numpys_default() -> None:
    samples = [5.0, 1.0, 4.0, 2.0]
    assert percentile(samples, 90) == np.percentile(samples, 90)


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf]])
def test_what_is_no_sample_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="no samples|not a finite"):
        percentile(bad, 50)


def test_one_process_gives_no_interval() -> None:
    assert percentile_interval([[1.0] * 100], 90) is None
    assert mean_interval([[1.0] * 100]) is None


def test_independent_samples_get_at_least_the_order_statistic_interval() -> None:
    groups = np.random.default_rng(0).normal(10, 1, (5, 200))
    interval = percentile_interval(list(groups), 90)
    assert interval is not None
    ranked = np.sort(groups.ravel())
    low, high = stats.binom.ppf([0.025, 0.975], 1000, 0.9).astype(int)
    assert interval[0] <= ranked[low - 1]
    assert interval[1] >= ranked[high]


def test_processes_that_differ_widen_the_interval() -> None:
    random = np.random.default_rng(0)
    alike = random.normal(10, 0.1, (5, 200))
    apart = alike + np.array([[-1.0], [-0.5], [0.0], [0.5], [1.0]])
    narrow, wide = percentile_interval(list(alike), 50), percentile_interval(list(apart), 50)
    assert narrow is not None
    assert wide is not None
    assert wide[1] - wide[0] > 10 * (narrow[1] - narrow[0])


def test_identical_samples_give_a_point() -> None:
    assert percentile_interval([[2.0] * 30] * 5, 90) == pytest.approx((2.0, 2.0))
    assert mean_interval([[2.0] * 30] * 5) == pytest.approx((2.0, 2.0))


def test_zero_latencies_do_not_break_the_logarithm() -> None:
    interval = percentile_interval([[0.0, 1.0, 2.0], [0.0, 1.5, 2.5]], 50)
    assert interval is not None
    assert interval[0] <= 1.25 <= interval[1]


def test_mean_interval_of_equal_processes_is_the_t_interval_of_their_means() -> None:
    groups = np.random.default_rng(1).normal(5, 1, (6, 50))
    means = groups.mean(axis=1)
    expected = stats.t.interval(0.95, 5, means.mean(), stats.sem(means))
    assert mean_interval(list(groups)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("successes", "total"), [(0, 20), (20, 20), (7, 20), (823, 1000)])
def test_wilson_agrees_with_scipy(successes: int, total: int) -> None:
    expected = stats.binomtest(successes, total).proportion_ci(method="wilson")
    assert proportion_interval(successes, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("successes", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_proportions_are_refused(successes: int, total: int) -> None:
    with pytest.raises(ValueError, match="proportion"):
        proportion_interval(successes, total)


def test_tango_interval_of_a_published_table() -> None:
    # 21 pairs: 1 both, 1 only first, 7 only second, 12 neither; Fagerland, Lydersen & Laake (Stat. Med. 33, 2014)
    # give -0.517 to -0.026.
    first = [True, True] + [False] * 19
    second = [True, False] + [True] * 7 + [False] * 12
    assert paired_difference_interval(first, second) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_models_that_never_disagree_still_have_an_interval() -> None:
    low, high = paired_difference_interval([True] * 500, [True] * 500)
    assert low == pytest.approx(-high)
    assert 0 < high < 0.01


def test_total_disagreement_stays_within_the_possible() -> None:
    low, high = paired_difference_interval([True] * 50, [False] * 50)
    assert 0.85 < low < 1.0
    assert high == pytest.approx(1.0)


def test_paired_answers_must_pair() -> None:
    with pytest.raises(ValueError, match="same inputs"):
        paired_difference_interval([True], [True, False])


def test_an_estimate_at_90_percent_is_widened_on_the_log_scale() -> None:
    estimate = Estimate(value=10, low=5, high=20, confidence=0.9, basis="predicted", source="x")
    low, high = at_95_percent(estimate)
    assert low * high == pytest.approx(100)
    assert high == pytest.approx(10 * 2 ** (1.959964 / 1.644854), rel=1e-5)


def test_an_estimate_at_95_percent_is_left_alone() -> None:
    assert at_95_percent(Estimate(value=10, low=5, high=20, basis="predicted", source="x")) == (5, 20)
