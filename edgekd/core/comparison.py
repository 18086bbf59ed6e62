"""Which of two models is faster, from processes that ran in turn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from edgekd.core.statistics import student_t
from edgekd.records.comparison import MedianRatio, Order

LOOKS = (5, 10, 20)
"""After how many pairs a verdict may end the comparison; one more look is had when time is up."""

LOOK_CONFIDENCE = 1 - 0.05 / (len(LOOKS) + 1)
"""So that all looks together are wrong at most 1 time in 20, if the two are alike (Bonferroni)."""


def turns(pairs: int) -> str:
    """Who runs when: `ABBAABBA…`, so that a drift that is linear in time favours neither."""
    return "".join("AB" if pair % 2 == 0 else "BA" for pair in range(pairs))


def median_ratio(first_ms: Sequence[float], second_ms: Sequence[float]) -> MedianRatio:
    """The ratio of two models' medians from pairs of neighbouring processes, and its interval.

    The geometric mean of the pairs' ratios, with Student's t over their logarithms: what the two processes of a pair
    share (heat, clocks, others' work) drops out, and what differs between pairs is in the interval.

    Args:
        first_ms: the median of each process of the first model, in order.
        second_ms: those of the second model's; the i-th ran next to the i-th of the first.

    Raises:
        ValueError: there is no pair, their numbers differ, or a median is not above 0.
    """
    if not first_ms or len(first_ms) != len(second_ms) or min(*first_ms, *second_ms) <= 0:
        raise ValueError("a ratio of medians needs pairs of medians above 0")
    logs = [math.log(a / b) for a, b in zip(first_ms, second_ms, strict=True)]
    centre, pairs = statistics.fmean(logs), len(logs)
    if pairs < 2:
        return MedianRatio(
            ratio=math.exp(centre), interval=None, confidence=LOOK_CONFIDENCE, pairs=pairs, verdict="undecided"
        )
    half = student_t(pairs - 1, LOOK_CONFIDENCE) * statistics.stdev(logs) / math.sqrt(pairs)
    low, high = math.exp(max(centre - half, -50.0)), math.exp(min(centre + half, 50.0))
    verdict: Order = "faster" if high < 1 else "slower" if low > 1 else "undecided"
    return MedianRatio(
        ratio=math.exp(centre), interval=(low, high), confidence=LOOK_CONFIDENCE, pairs=pairs, verdict=verdict
    )
