"""Intervals for what was measured: percentiles, means, proportions and paired differences.

Intervals are at 95 % unless asked otherwise. Latency samples come grouped by the process that took them, and samples
of one process are not independent: each restart draws a new memory layout, and with it a level of its own (Kalibera &
Jones, "Rigorous benchmarking in reasonable time", ISMM 2013). Intervals of latency therefore rest on the spread
between processes. A further process narrows them; longer runs of the same ones hardly do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgekd.records import Estimate

Interval: TypeAlias = tuple[float, float]
Floats: TypeAlias = NDArray[np.float64]

KEPT_SAMPLES = 20_000
LEAST_PROCESSES = 2
CONFIDENCE = 0.95

_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(0.5 + CONFIDENCE / 2)


@functools.cache
def least_samples(percent: float) -> int:
    """The fewest samples from which a percentile is judged: 11 for p50, 64 for p90, 130, 219, 662 for p95, p97, p99.

    The least n for which at most one of n samples beyond the percentile would be a surprise (probability at most
    1 %), if the true percentile were no better: MLPerf Inference's early-stopping rule with one over-latency query.
    """
    share = 1 - percent / 100
    n = 2
    while (1 - share) ** n + n * share * (1 - share) ** (n - 1) > 0.01:
        n += 1
    return n


def early_stopping_estimate(samples: ArrayLike, percent: float) -> float | None:
    """MLPerf Inference's early-stopping estimate of a latency percentile: an upper bound at 99 % confidence.

    The t-th largest sample, with t the greatest number of samples beyond the percentile that would still be a
    surprise (probability at most 1 %) were the percentile no better. With 64 samples it is the largest for p90.
    None with fewer samples than the rule needs. (MLCommons Inference rules, appendix on early stopping, with a
    tolerance of zero.)

    Raises:
        ValueError: a sample is not finite.
    """
    array = np.sort(_finite(samples))
    if len(array) < least_samples(percent):
        return None
    counts = np.arange(len(array) + 1)
    log_probability = (
        _log_choose(len(array)) + counts * math.log1p(-percent / 100) + counts[::-1] * math.log(percent / 100)
    )
    beyond = int(np.searchsorted(np.cumsum(np.exp(log_probability)), 0.01, side="right")) - 1
    return float(array[len(array) - max(beyond, 1)])


@functools.cache
def student_t(degrees_of_freedom: int, confidence: float = CONFIDENCE) -> float:
    """The two-sided point of Student's t: `confidence` of the distribution lies within plus or minus it.

    By bisection of the closed form for whole degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4).
    """
    if degrees_of_freedom < 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, not {degrees_of_freedom}")
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, degrees_of_freedom) < confidence else (low, angle)
    return math.tan(low) * math.sqrt(degrees_of_freedom)


def _within(angle: float, degrees_of_freedom: int) -> float:
    """The probability that |t| is at most tan(angle) * sqrt(degrees_of_freedom)."""
    odd = degrees_of_freedom % 2
    cosine, total = math.cos(angle), 0.0
    term = cosine if odd else 1.0
    for power in range(1 + odd, degrees_of_freedom, 2):
        total += term
        term *= cosine**2 * power / (power + 1)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def percentile(samples: ArrayLike, percent: float) -> float:
    """The percentile, interpolated linearly between order statistics (Hyndman & Fan 1996, type 7).

    It is the default of numpy, R and spreadsheets, so that anyone gets the same figure from the raw samples.

    Raises:
        ValueError: there are no samples, or one is not finite.
    """
    return float(np.percentile(_finite(samples), percent))


def percentile_interval(groups: Sequence[ArrayLike], percent: float, confidence: float = CONFIDENCE) -> Interval | None:
    """The interval of a latency percentile over all processes, from samples (ms) grouped by process.

    None with fewer than two processes: their spread is then unknown. The hull of two intervals:

    - the exact order-statistic interval of the pooled samples, which alone would hold if samples were independent;
    - the pooled percentile, times or over `exp(t * s * c / sqrt(k))`, with s the standard deviation of the k
      processes' own log percentiles and t Student's with k - 1 degrees of freedom (the method of independent
      replications: Law, "Simulation Modeling and Analysis", ch. 9). c widens it where processes differ by more than
      they scatter, since the percentile then hangs on the slowest few of them; see `_replication_factor`.

    With 5 processes the usual bootstrap over processes covers the truth in 10 to 90 % of simulated cases, this in
    89 to 99 % (independent, autocorrelated, spiked, and between-process spreads of 0 to 5 times the scatter within):
    tests/properties/test_intervals.py. Order of processes and of samples within one does not matter.

    Raises:
        ValueError: a group is empty, or a sample is not finite.
    """
    if len(groups) < LEAST_PROCESSES:
        return None
    arrays = [_finite(group) for group in groups]
    pooled = np.sort(np.concatenate(arrays))
    low_rank, high_rank = _order_statistic_ranks(len(pooled), percent / 100, confidence)
    low, high = float(pooled[low_rank - 1]), float(pooled[high_rank - 1])
    logarithmic = bool(pooled[0] > 0)
    scaled = [np.log(array) if logarithmic else array for array in arrays]
    # Sorted before summing, so that the order of processes changes not even the last bit.
    spread = float(np.std(np.sort([np.percentile(array, percent) for array in scaled]), ddof=1))
    half = student_t(len(arrays) - 1, confidence) * spread / math.sqrt(len(arrays))
    half *= _replication_factor(_between_share(scaled), percent / 100)
    value = float(np.percentile(pooled, percent))
    if logarithmic:
        factor = math.exp(min(half, 50.0))
        return min(low, value / factor), max(high, value * factor)
    return min(low, value - half), max(high, value + half)


def mean_interval(groups: Sequence[ArrayLike], confidence: float = CONFIDENCE) -> Interval | None:
    """The interval of the mean of all samples, grouped by process; None with fewer than two processes.

    The cluster-robust variance of a ratio estimator (Cochran, "Sampling Techniques", 3rd ed., eq. 6.9, processes
    as the units), with Student's t of k - 1 degrees of freedom.

    Raises:
        ValueError: a group is empty, or a sample is not finite.
    """
    if len(groups) < LEAST_PROCESSES:
        return None
    arrays = [_finite(group) for group in groups]
    k, n = len(arrays), sum(array.size for array in arrays)
    mean = math.fsum(float(array.sum()) for array in arrays) / n
    scatter = math.fsum(float((array - mean).sum()) ** 2 for array in arrays)
    half = student_t(k - 1, confidence) * math.sqrt(k / (k - 1) * scatter) / n
    return mean - half, mean + half


def proportion_interval(successes: int, total: int) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927; Brown, Cai & DasGupta 2001 on its coverage).

    It takes the trials for independent. Test inputs that come in groups (windows of one subject) are not quite: the
    interval then speaks for more inputs of the same subjects, not for new ones.

    Raises:
        ValueError: there are no trials, or `successes` is not between 0 and `total`.
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"a proportion needs 0 <= successes <= total and total >= 1, not {successes} of {total}")
    share, z2 = successes / total, _Z**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    # At the edges the algebra gives exactly 0 and 1; rounding would not.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == total else centre + half)


def paired_difference_interval(
    first: Sequence[bool], second: Sequence[bool], confidence: float = CONFIDENCE
) -> Interval:
    """The interval of the share right in `first` less that in `second`, over the same inputs in the same order.

    Tango's asymptotic score interval for paired proportions (Tango, Statistics in Medicine 17, 1998): it keeps its
    coverage where the two hardly ever disagree, and has a width even where they never do.

    Raises:
        ValueError: the two are empty or of different lengths.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"paired answers need the same inputs, at least one: {len(first)} and {len(second)}")
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second, n = int((a & ~b).sum()), int((b & ~a).sum()), len(a)

    def crossing(level: float) -> float:
        low, high = -1.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            above = _tango_score(only_first, only_second, n, middle) > level
            low, high = (middle, high) if above else (low, middle)
        return (low + high) / 2

    z = _NORMAL.inv_cdf(0.5 + confidence / 2)
    return crossing(z), crossing(-z)


def _tango_score(only_first: int, only_second: int, n: int, difference: float) -> float:
    """Tango's statistic for the hypothesis of that difference; it falls as the difference rises."""
    surplus = only_first - only_second - n * difference
    # The likeliest share of "only second right" under the hypothesis: the greater root of a x^2 + b x + c.
    a = 2 * n
    b = -only_first - only_second + (2 * n - only_first + only_second) * difference
    c = -only_second * difference * (1 - difference)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * share + difference * (1 - difference))
    if variance <= 1e-12 * n:
        return 0.0 if surplus == 0 else math.copysign(math.inf, surplus)
    return surplus / math.sqrt(variance)


def at_95_percent(estimate: Estimate) -> Interval:
    """An estimate's interval at 95 %, where it was stated at less: normal on a log scale where it is positive.

    An interval of higher confidence is left as it is.
    """
    if not 0 < estimate.confidence < CONFIDENCE:
        return estimate.low, estimate.high
    factor = _Z / _NORMAL.inv_cdf(0.5 + estimate.confidence / 2)
    value = estimate.value
    if min(estimate.low, value) > 0:
        return value * (estimate.low / value) ** factor, value * (estimate.high / value) ** factor
    return value - (value - estimate.low) * factor, value + (estimate.high - value) * factor


@functools.lru_cache(maxsize=256)
def _order_statistic_ranks(n: int, share: float, confidence: float) -> tuple[int, int]:
    """The ranks (from 1) between which a quantile lies with `confidence`, for any distribution (binomial tails)."""
    successes = np.arange(n + 1)
    cumulative = np.cumsum(np.exp(_log_choose(n) + successes * math.log(share) + (n - successes) * math.log1p(-share)))
    tail = (1 - confidence) / 2
    low = int(np.searchsorted(cumulative, tail))
    high = int(np.searchsorted(cumulative, 1 - tail)) + 1
    return max(low, 1), min(high, n)


def _log_choose(n: int) -> Floats:
    """Logarithms of the binomial coefficients of n, from 0 to n."""
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))
    choose: Floats = log_factorial[n] - log_factorial - log_factorial[::-1]
    return choose


def _between_share(groups: Sequence[Floats]) -> float:
    """The share of the variance that lies between processes, from 0 to 1 (one-way random effects, by medians)."""
    medians = np.sort([np.median(group) for group in groups])
    within = float(np.mean(np.sort([np.mean(np.sort((group - np.median(group)) ** 2)) for group in groups])))
    # A median's own sampling variance is pi/2 that of a mean, for normal samples.
    chance = math.pi / 2 * within * math.fsum(1 / group.size for group in groups) / len(groups)
    between = max(0.0, float(np.var(medians, ddof=1)) - chance)
    return between / (between + within) if between > 0 else 0.0


def _replication_factor(between: float, share: float) -> float:
    """By how much processes' levels move the pooled percentile, against the mean of the processes' percentiles.

    With normal levels (variance `between`) and normal scatter (1 - `between`), a process whose level is u holds
    F(u) of its samples below the quantile q. The asymptotic variance of the pooled quantile over k processes is
    Var F(u) / (k f(q)^2) (the influence function of a quantile, averaged within a cluster), here against between / k.
    It is 1 where the scatter within dominates, and share (1 - share) / f(q)^2 where the levels do.
    """
    between = min(between, 0.98)
    if between < 1e-6:
        return 1.0
    quantile = _NORMAL.inv_cdf(share)
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    weights = weights / weights.sum()
    below = np.array([_NORMAL.cdf((quantile - math.sqrt(between) * u) / math.sqrt(1 - between)) for u in nodes])
    variance = float(weights @ below**2 - (weights @ below) ** 2)
    return max(1.0, math.sqrt(variance / between) / _NORMAL.pdf(quantile))


def _finite(samples: ArrayLike) -> Floats:
    array = np.asarray(samples, dtype=np.float64).ravel()
    if array.size == 0:
        raise ValueError("there are no samples")
    if not np.isfinite(array).all():
        raise ValueError(f"sample {int(np.argmin(np.isfinite(array)))} is not a finite number")
    return array
