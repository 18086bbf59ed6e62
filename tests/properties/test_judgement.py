"""What must hold of every judgement."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.verdicts import exit_code, judge, undecided
from edgekd.records import Accuracy, Budget, Estimate, Measurement, Verdict, named_plan

ORDER = {"missed": 0, "inconclusive": 1, "met": 2}
UPPER = ["latency_p50_ms", "latency_p90_ms", "latency_p95_ms", "latency_p99_ms", "peak_memory_mib"]

groups = st.lists(st.lists(st.floats(0.1, 100), min_size=1, max_size=60), min_size=1, max_size=5)
limits = st.floats(0.1, 100)


def measurement(processes: list[list[float]], throttled: bool | None = False) -> Measurement:
    samples = [sample for group in processes for sample in group]
    return Measurement(
        board="b",
        matches_profile="p",
        runtime="tflite",
        runtime_version="1",
        provider="cpu",
        threads=1,
        plan=named_plan("quick", "tflite", 1),
        model_sha256="0" * 64,
        model_path="m",
        samples_ms=tuple(samples),
        sample_times_s=tuple(float(i) for i in range(len(samples))),
        sample_processes=tuple(i for i, group in enumerate(processes) for _ in group),
        sample_stride=1,
        runs=max(1, len(samples)),
        latency_p50_ms=0,
        latency_p90_ms=0,
        latency_p99_ms=0,
        peak_rss_bytes=2**26,
        peak_memory_bytes=2**22,
        throttled=throttled,
        facts={},
    )


def judged(budget: Budget, found: Measurement | None, **evidence: object) -> tuple[Verdict, ...]:
    arguments: dict[str, object] = {"predicted": {}, "accuracy": Accuracy(), "file_size_bytes": None}
    return judge(budget, measurement=found, **(arguments | evidence))  # type: ignore[arg-type]


@given(groups, st.sampled_from(UPPER), limits, limits, st.sampled_from([True, False, None]))
def test_loosening_an_upper_limit_never_makes_it_worse(
    processes: list[list[float]], name: str, one: float, other: float, throttled: bool | None
) -> None:
    found = measurement(processes, throttled)
    strict, loose = sorted((one, other))
    before, after = (judged(Budget(**{name: limit}), found)[0] for limit in (strict, loose))
    assert ORDER[before.outcome] <= ORDER[after.outcome]


@given(groups, limits, limits)
def test_loosening_a_lower_limit_never_makes_it_worse(processes: list[list[float]], one: float, other: float) -> None:
    loose, strict = sorted((100 * one, 100 * other))
    before, after = (judged(Budget(fps=limit), measurement(processes))[0] for limit in (strict, loose))
    assert ORDER[before.outcome] <= ORDER[after.outcome]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=100), st.floats(0, 1), st.floats(0, 1))
def test_loosening_accuracy_never_makes_it_worse(answers: list[tuple[bool, bool]], one: float, other: float) -> None:
    teacher, student = ([answer[i] for answer in answers] for i in (0, 1))
    accuracy = Accuracy(
        teacher=sum(teacher) / len(answers),
        student_int8=sum(student) / len(answers),
        inputs=len(answers),
        teacher_correct=tuple(teacher),
        student_int8_correct=tuple(student),
    )
    low, high = sorted((one, other))
    for name, strict, loose in (("accuracy_min", high, low), ("accuracy_drop_max", low, high)):
        before, after = (judged(Budget(**{name: limit}), None, accuracy=accuracy)[0] for limit in (strict, loose))
        assert ORDER[before.outcome] <= ORDER[after.outcome]


@given(st.dictionaries(st.sampled_from(sorted(set(Budget.model_fields) - {"mode"})), st.floats(0.01, 1), min_size=1))
def test_zero_measurements_never_pass(chosen: dict[str, float]) -> None:
    for found in (None, measurement([])):
        verdicts = judged(Budget(**chosen), found)
        memory_only = found is not None and set(chosen) == {"peak_memory_mib"}
        assert memory_only or exit_code(verdicts) != 0
        assert all(verdict.outcome != "met" for verdict in verdicts if verdict.constraint != "peak_memory_mib")


@given(groups, st.sampled_from([*UPPER[:4], "fps"]), limits, st.randoms(use_true_random=False))
def test_the_order_of_processes_changes_nothing(
    processes: list[list[float]], name: str, limit: float, shuffler: random.Random
) -> None:
    shuffled = list(processes)
    shuffler.shuffle(shuffled)
    budget = Budget(**{name: limit})
    assert judged(budget, measurement(processes)) == judged(budget, measurement(shuffled))
    assert undecided(budget, processes) == undecided(budget, shuffled)


@given(groups, st.sampled_from([*UPPER[:4], "fps"]), limits)
def test_measuring_stops_early_only_on_what_is_decided(processes: list[list[float]], name: str, limit: float) -> None:
    budget = Budget(**{name: limit})
    if not undecided(budget, processes):
        assert judged(budget, measurement(processes))[0].outcome in ("met", "missed")


@pytest.mark.slow
def test_looking_again_and_again_does_not_pass_much_more_than_one_look() -> None:
    random_ = np.random.default_rng(0)

    def board(processes: int, samples: int) -> np.ndarray:
        return np.exp(random_.normal(0, 0.05, (processes, samples)) + 0.01 * random_.normal(size=(processes, 1)))

    truth = Budget(latency_p90_ms=float(np.percentile(board(300_000, 1), 90)))
    passed = impatient = 0
    for _ in range(250):
        found = board(12, 50).tolist()
        looks = next((k for k in range(5, 12) if not undecided(truth, found[:k])), 12)
        passed += judged(truth, measurement(found[:looks]))[0].outcome == "met"
        impatient += any(judged(truth, measurement(found[:k]))[0].outcome == "met" for k in range(5, 13))
    # Measured over 1,500 boards: one look 2.3 %, strict looks 4.8 %, stopping at the first 95 % interval 8.4 %.
    assert passed < impatient
    assert passed / 250 <= 0.075


@given(groups, limits)
def test_verdicts_round_trip_through_json(processes: list[list[float]], limit: float) -> None:
    budget = Budget(latency_p90_ms=limit, fps=limit, peak_memory_mib=limit, energy_mj=limit)
    for verdict in judged(budget, measurement(processes)):
        assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


@given(st.floats(0.1, 100), st.floats(1, 4), st.floats(1, 4), limits, limits)
def test_loosening_a_predicted_limit_never_makes_it_worse(
    value: float, below: float, above: float, one: float, other: float
) -> None:
    estimate = Estimate(
        value=value, low=value / below, high=value * above, confidence=0.9, basis="predicted", source="x"
    )
    strict, loose = sorted((one, other))
    before, after = (
        judged(Budget(latency_p90_ms=limit), None, predicted={"latency_p90_ms": estimate})[0]
        for limit in (strict, loose)
    )
    assert ORDER[before.outcome] <= ORDER[after.outcome]
