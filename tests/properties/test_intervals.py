"""Coverage by simulation, and what must hold of any samples."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.core.statistics import mean_interval, paired_difference_interval, percentile, percentile_interval

PROCESSES = 5
REPETITIONS = 250
Sampler = Callable[[np.random.Generator, int, int], np.ndarray]

groups_of_samples = st.lists(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=30), min_size=2, max_size=6)


def independent(random: np.random.Generator, processes: int, samples: int) -> np.ndarray:
    return random.normal(0, 0.05, (processes, samples))


def autocorrelated(random: np.random.Generator, processes: int, samples: int) -> np.ndarray:
    noise = random.normal(0, 0.05, (processes, samples))
    for i in range(1, samples):
        noise[:, i] = 0.9 * noise[:, i - 1] + np.sqrt(1 - 0.81) * noise[:, i]
    return noise


def spiked(random: np.random.Generator, processes: int, samples: int) -> np.ndarray:
    spikes = (random.random((processes, samples)) < 0.02) * random.exponential(0.5, (processes, samples))
    return independent(random, processes, samples) + spikes + level(random, processes, 0.01)


def skewed(random: np.random.Generator, processes: int, samples: int) -> np.ndarray:
    return random.gumbel(0, 0.05, (processes, samples)) + level(random, processes, 0.02)


def processes_as_far_apart_as_samples(random: np.random.Generator, processes: int, samples: int) -> np.ndarray:
    return independent(random, processes, samples) + level(random, processes, 0.05)


def processes_far_apart(random: np.random.Generator, processes: int, samples: int) -> np.ndarray:
    return independent(random, processes, samples) + level(random, processes, 0.25)


def level(random: np.random.Generator, processes: int, spread: float) -> np.ndarray:
    return spread * random.normal(size=(processes, 1))


@pytest.mark.parametrize(("percent", "samples"), [(50, 13), (90, 13), (90, 130), (99, 133)])
@pytest.mark.parametrize(
    "sampler", [independent, autocorrelated, spiked, skewed, processes_as_far_apart_as_samples, processes_far_apart]
)
def test_percentile_interval_covers_the_truth(sampler: Sampler, percent: int, samples: int) -> None:
    random = np.random.default_rng(7)
    truth = float(np.percentile(np.exp(sampler(random, 300_000, 1)), percent))
    hits = 0
    for _ in range(REPETITIONS):
        interval = percentile_interval(list(np.exp(sampler(random, PROCESSES, samples))), percent)
        assert interval is not None
        hits += interval[0] <= truth <= interval[1]
    # Nominal 95 %; 85 % allows for simulation error (1.4 points) about the worst seen, 89 %.
    assert hits / REPETITIONS >= 0.85


def test_mean_interval_covers_the_truth() -> None:
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(1000):
        interval = mean_interval(list(10 + autocorrelated(random, PROCESSES, 20) + level(random, PROCESSES, 0.05)))
        assert interval is not None
        hits += interval[0] <= 10 <= interval[1]
    assert 0.93 <= hits / 1000 <= 0.97


@pytest.mark.parametrize(("both", "only_first", "only_second"), [(0.8, 0.05, 0.03), (0.9, 0.01, 0.01), (0.5, 0.2, 0.1)])
def test_paired_interval_covers_the_truth(both: float, only_first: float, only_second: float) -> None:
    random = np.random.default_rng(5)
    truth, hits = only_first - only_second, 0
    for _ in range(500):
        kind = random.choice(4, 300, p=[both, only_first, only_second, 1 - both - only_first - only_second])
        low, high = paired_difference_interval(list(kind <= 1), list((kind == 0) | (kind == 2)))
        hits += low <= truth <= high
    assert hits / 500 >= 0.92


@given(groups_of_samples, st.sampled_from([50, 90, 95, 99]))
def test_interval_holds_its_percentile(groups: list[list[float]], percent: int) -> None:
    interval = percentile_interval(groups, percent)
    assert interval is not None
    value = percentile([sample for group in groups for sample in group], percent)
    assert interval[0] <= value * (1 + 1e-12)
    assert interval[1] >= value * (1 - 1e-12)


@given(groups_of_samples, st.randoms())
def test_order_of_processes_and_samples_changes_nothing(groups: list[list[float]], random: object) -> None:
    shuffled = [list(group) for group in groups]
    for group in shuffled:
        random.shuffle(group)  # type: ignore[attr-defined]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert percentile_interval(shuffled, 90) == percentile_interval(groups, 90)


@given(groups_of_samples, st.floats(1e-2, 1e2))
def test_intervals_scale_with_the_unit(groups: list[list[float]], factor: float) -> None:
    scaled = percentile_interval([[factor * sample for sample in group] for group in groups], 90)
    plain = percentile_interval(groups, 90)
    assert plain is not None
    assert scaled == pytest.approx([factor * end for end in plain], rel=1e-6)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_paired_interval_holds_its_difference_and_swaps_its_sign(answers: list[tuple[bool, bool]]) -> None:
    first, second = [answer[0] for answer in answers], [answer[1] for answer in answers]
    low, high = paired_difference_interval(first, second)
    difference = (sum(first) - sum(second)) / len(answers)
    assert -1 <= low <= difference + 1e-9
    assert difference - 1e-9 <= high <= 1
    assert paired_difference_interval(second, first) == pytest.approx((-high, -low), abs=1e-9)
