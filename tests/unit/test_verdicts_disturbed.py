"""What others' work, swapping, settling and a meter's problems do to verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.core.evidence import samples_by_process
from edgekd.core.verdicts import judge
from edgekd.records import Accuracy, Budget, Contention, Measurement, PowerTrace, named_plan


def measurement(plan=None, **changes):
    random = np.random.default_rng(0)
    samples = tuple(random.normal(3.0, 0.05, 1000))
    fields = {
        "board": "pi",
        "matches_profile": "rpi4",
        "runtime": "tflite",
        "runtime_version": "2.3.0",
        "provider": "XNNPACK",
        "threads": 1,
        "plan": plan or named_plan("standard", "tflite", 1),
        "model_sha256": "0" * 64,
        "model_path": "student.tflite",
        "samples_ms": samples,
        "sample_times_s": tuple(np.arange(1000.0)),
        "sample_processes": tuple(int(i) for i in np.arange(1000) // 200),
        "sample_stride": 1,
        "runs": 1000,
        "latency_p50_ms": 3.0,
        "latency_p90_ms": 3.1,
        "latency_p99_ms": 3.2,
        "peak_rss_bytes": 10**7,
        "peak_memory_bytes": 10**6,
        "throttled": False,
        "facts": {},
    }
    return Measurement.model_validate(fields | changes)


def contention(**changes):
    calm = {"preempted_share": 0.0, "waited_share": 0.0, "stolen_share": 0.0, "major_faults": 0, "swapped": False}
    return Contention.model_validate(calm | changes)


def outcomes(found, budget):
    verdicts = judge(budget, measurement=found, predicted={}, accuracy=Accuracy(), file_size_bytes=None)
    return {verdict.constraint: (verdict.outcome, verdict.reason) for verdict in verdicts}


BUDGET = Budget(latency_p50_ms=4, latency_p90_ms=4, latency_p99_ms=4, fps=100, peak_memory_mib=16)


def test_calm_runs_are_judged():
    assert {outcome for outcome, _ in outcomes(measurement(contention=contention()), BUDGET).values()} == {"met"}


@pytest.mark.parametrize(
    ("change", "open_"),
    [
        ({"preempted_share": 0.02}, {"latency_p99_ms"}),
        ({"preempted_share": 0.2}, {"latency_p99_ms", "latency_p90_ms"}),
        ({"waited_share": 0.5}, {"fps"}),
        ({"stolen_share": 0.2}, {"latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "fps"}),
        ({"swapped": True}, {"latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "fps"}),
    ],
)
def test_a_percentile_stands_until_as_many_runs_were_disturbed_as_lie_beyond_it(change, open_):
    found = outcomes(measurement(contention=contention(**change)), BUDGET)
    assert {name for name, (outcome, _) in found.items() if outcome == "inconclusive"} == open_
    assert all("others" in found[name][1] or "swapped" in found[name][1] for name in open_)
    declared = named_plan("standard", "tflite", 1).model_copy(update={"background": "declared"})
    again = outcomes(measurement(plan=declared, contention=contention(**change)), BUDGET)
    assert {outcome for outcome, _ in again.values()} == {"met"}


def test_a_board_that_was_too_slow_while_others_worked_is_not_said_to_miss():
    tight = Budget(latency_p90_ms=1.0)
    assert outcomes(measurement(contention=contention()), tight)["latency_p90_ms"][0] == "missed"
    disturbed = outcomes(measurement(contention=contention(preempted_share=0.3)), tight)
    assert disturbed["latency_p90_ms"][0] == "inconclusive"


def test_only_what_came_after_the_board_had_settled_is_judged():
    samples = np.concatenate([np.full(500, 1.0), np.random.default_rng(1).normal(8.0, 0.01, 500)])
    found = measurement(samples_ms=tuple(samples), judged_from_s=500.0)
    assert sum(len(group) for group in samples_by_process(found)) == 500
    assert outcomes(found, Budget(latency_p50_ms=4.0))["latency_p50_ms"][0] == "missed"
    sustained = Budget(latency_p50_ms=10.0, mode="sustained")
    assert outcomes(found, sustained)["latency_p50_ms"][0] == "met"


def trace(**changes):
    fields = {
        "meter": "ina3221",
        "rail": "VDD_IN",
        "grade": "B",
        "rate_hz": 20,
        "idle_w": 2.0,
        "mean_w": 5.0,
        "energy_mj": 10.0,
        "interval_mj": (9.5, 10.5),
        "net_mj": 6.0,
        "net_interval_mj": (5.0, 7.0),
    }
    return PowerTrace.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("changes", "outcome", "word"),
    [
        ({}, "missed", "gross"),
        ({"judged": "net"}, "met", "net of idle"),
        ({"judged": "net", "net_mj": None, "net_interval_mj": None}, "not_measured", "no idle"),
        ({"judged": "net", "grade": "C"}, "inconclusive", "grade C"),
        ({"judged": "net", "grade": "D"}, "inconclusive", "grade D"),
        ({"judged": "net", "problems": ("the meter is stuck",)}, "inconclusive", "stuck"),
    ],
)
def test_energy_is_judged_gross_unless_asked_and_never_met_on_a_weak_grade(changes, outcome, word):
    found = outcomes(measurement(power=trace(**changes)), Budget(energy_mj=8.0))["energy_mj"]
    assert found[0] == outcome
    assert word in found[1]
