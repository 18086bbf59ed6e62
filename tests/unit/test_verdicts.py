import numpy as np
import pytest

from edgekd.core.verdicts import CONSTRAINTS, MEASURED_ONLY, exit_code, judge, undecided
from edgekd.records import Accuracy, Budget, Estimate, Measurement, PowerTrace, Verdict, named_plan

NOBODY = Accuracy()


def measurement(processes: int = 5, runs: int = 200, mean_ms: float = 4.0, **changes: object) -> Measurement:
    samples = np.random.default_rng(0).normal(mean_ms, 0.05, (processes, runs)).ravel()
    fields: dict[str, object] = {
        "board": "pi@rack-3",
        "matches_profile": "rpi4",
        "runtime": "tflite",
        "runtime_version": "2.3.0",
        "provider": "XNNPACK",
        "threads": 4,
        "plan": named_plan("standard", "tflite", 4),
        "model_sha256": "0" * 64,
        "model_path": "student.tflite",
        "samples_ms": tuple(samples),
        "sample_times_s": tuple(i * mean_ms / 1000 for i in range(len(samples))),
        "sample_processes": tuple(int(i) for i in np.repeat(np.arange(processes), runs)),
        "sample_stride": 1,
        "runs": max(1, len(samples)),
        "latency_p50_ms": 4.0,
        "latency_p90_ms": 4.1,
        "latency_p99_ms": 4.2,
        "peak_rss_bytes": 60 * 2**20,
        "peak_memory_bytes": 6 * 2**20,
        "throttled": False,
        "facts": {},
    }
    return Measurement.model_validate(fields | changes)


def power(grade: str = "A", interval: tuple[float, float] | None = (9.0, 11.0)) -> PowerTrace:
    return PowerTrace.model_validate(
        {
            "meter": "ina3221",
            "rail": "VDD_IN",
            "grade": grade,
            "rate_hz": 100,
            "idle_w": 2.0,
            "mean_w": 2.5,
            "energy_mj": 10.0,
            "interval_mj": interval,
            "seconds": (),
            "watts": (),
        }
    )


def estimate(value: float, low: float, high: float, confidence: float = 0.95) -> Estimate:
    return Estimate(value=value, low=low, high=high, confidence=confidence, basis="predicted", source="a prior")


def one(budget: Budget, found: Measurement | None = None, **evidence: object) -> Verdict:
    arguments: dict[str, object] = {
        "measurement": found,
        "predicted": {},
        "accuracy": NOBODY,
        "file_size_bytes": None,
    }
    verdicts = judge(budget, **(arguments | evidence))  # type: ignore[arg-type]
    assert len(verdicts) == 1
    return verdicts[0]


def test_every_constraint_of_the_budget_has_its_words() -> None:
    assert set(CONSTRAINTS) == set(Budget.model_fields) - {"mode"}


class TestLatency:
    @pytest.mark.parametrize(("limit", "outcome"), [(5.0, "met"), (3.0, "missed"), (4.064, "inconclusive")])
    def test_the_whole_interval_decides(self, limit: float, outcome: str) -> None:
        verdict = one(Budget(latency_p90_ms=limit), measurement())
        assert verdict.outcome == outcome
        assert verdict.basis == "measured"
        assert verdict.value is not None
        assert verdict.margin == pytest.approx(limit - verdict.value)
        if outcome == "inconclusive":
            assert "straddles" in verdict.reason

    @pytest.mark.parametrize(
        ("limits", "least"), [({"latency_p50_ms": 9}, 11), ({"latency_p95_ms": 9}, 130), ({"latency_p99_ms": 9}, 662)]
    )
    def test_below_the_least_number_of_samples_it_stays_open(self, limits: dict[str, float], least: int) -> None:
        few = one(Budget(**limits), measurement(processes=1, runs=least - 1))
        assert few.outcome == "inconclusive"
        assert f"at least {least}" in few.reason
        enough = one(Budget(**limits), measurement(processes=2, runs=-(-least // 2)))
        assert "at least" not in enough.reason

    def test_one_process_is_not_enough(self) -> None:
        verdict = one(Budget(latency_p90_ms=9), measurement(processes=1, runs=1000))
        assert verdict.outcome == "inconclusive"
        assert "one process" in verdict.reason

    def test_no_samples_is_not_measured(self) -> None:
        assert one(Budget(latency_p90_ms=9), measurement(runs=0)).outcome == "not_measured"

    def test_frames_per_second_are_a_lower_limit(self) -> None:
        assert one(Budget(fps=200), measurement()).outcome == "met"
        missed = one(Budget(fps=300), measurement())
        assert missed.outcome == "missed"
        assert missed.value == pytest.approx(250, rel=0.01)
        assert missed.margin == pytest.approx(-50, rel=0.05)

    def test_a_throttled_run_is_no_burst_figure(self) -> None:
        verdict = one(Budget(latency_p90_ms=9), measurement(throttled=True))
        assert verdict.outcome == "inconclusive"
        assert "throttled" in verdict.reason

    def test_a_board_that_cannot_tell_says_so(self) -> None:
        verdict = one(Budget(latency_p90_ms=9), measurement(throttled=None))
        assert verdict.outcome == "met"
        assert "cannot tell" in verdict.reason

    def test_a_sustained_budget_needs_a_long_run(self) -> None:
        budget = Budget(latency_p90_ms=9, mode="sustained")
        assert one(budget, measurement()).outcome == "inconclusive"
        long = measurement(sample_times_s=tuple(np.linspace(0, 700, 1000)), throttled=True)
        assert one(budget, long).outcome == "met"


class TestBoards:
    BUDGET = Budget(latency_p90_ms=9, fps=1, peak_memory_mib=99, energy_mj=99, power_w=99)

    def test_another_kind_of_board_judges_nothing_of_the_board(self) -> None:
        found = measurement(matches_profile=None, mismatch_reason="it is an x86-64 laptop", power=power(), accuracy=0.9)
        right = (True,) * 90 + (False,) * 10
        accuracy = Accuracy(student_int8=0.9, inputs=100, student_int8_correct=right)
        verdicts = judge(
            self.BUDGET.overridden_by(Budget(accuracy_min=0.5, file_size_kib=10)),
            measurement=found,
            predicted={"latency_p90_ms": estimate(1, 1, 1)},
            accuracy=accuracy,
            file_size_bytes=1024,
            profile_matches=False,
            basis_allowed=MEASURED_ONLY,
        )
        outcomes = {verdict.constraint: verdict.outcome for verdict in verdicts}
        assert outcomes.pop("accuracy_min") == outcomes.pop("file_size_kib") == "met"
        assert set(outcomes.values()) == {"not_measured"}
        assert all("x86-64" in verdict.reason for verdict in verdicts if verdict.outcome == "not_measured")
        assert exit_code(verdicts) == 6

    def test_without_a_board_and_predictions_nothing_passes(self) -> None:
        verdicts = judge(self.BUDGET, measurement=None, predicted={}, accuracy=NOBODY, file_size_bytes=None)
        assert {verdict.outcome for verdict in verdicts} == {"not_measured"}
        assert all(verdict.basis is None and verdict.value is None for verdict in verdicts)

    def test_peak_memory_is_in_units_of_two_to_the_twenty(self) -> None:
        assert one(Budget(peak_memory_mib=6.0), measurement()).outcome == "met"
        verdict = one(Budget(peak_memory_mib=5.99), measurement())
        assert verdict.outcome == "missed"
        assert verdict.interval == (6.0, 6.0)
        assert "no interval" in verdict.reason


class TestPrediction:
    BUDGET = Budget(latency_p90_ms=10)

    @pytest.mark.parametrize(
        ("bounds", "outcome"), [((5, 10), "met"), ((11, 12), "missed"), ((5, 10.1), "inconclusive")]
    )
    def test_the_whole_predicted_interval_decides(self, bounds: tuple[float, float], outcome: str) -> None:
        verdict = one(self.BUDGET, predicted={"latency_p90_ms": estimate(sum(bounds) / 2, *bounds)})
        assert (verdict.outcome, verdict.basis) == (outcome, "predicted")
        assert "a prior" in verdict.reason

    def test_an_interval_of_less_confidence_is_widened(self) -> None:
        verdict = one(self.BUDGET, predicted={"latency_p90_ms": estimate(5, 2.5, 10, confidence=0.9)})
        assert verdict.outcome == "inconclusive"
        assert "widened" in verdict.reason

    def test_predictions_may_be_barred(self) -> None:
        predicted = {"latency_p90_ms": estimate(1, 1, 1)}
        assert one(self.BUDGET, predicted=predicted, basis_allowed=MEASURED_ONLY).outcome == "not_measured"

    def test_a_measurement_beats_a_prediction(self) -> None:
        assert one(
            Budget(latency_p90_ms=3), measurement(), predicted={"latency_p90_ms": estimate(1, 1, 1)}
        ).outcome == ("missed")


class TestEnergy:
    @pytest.mark.parametrize(
        ("grade", "limit", "outcome"),
        [
            ("A", 12, "met"),
            ("B", 8, "missed"),
            ("A", 10, "inconclusive"),
            ("C", 12, "inconclusive"),
            ("C", 8, "missed"),
            ("D", 12, "inconclusive"),
            ("D", 8, "inconclusive"),
        ],
    )
    def test_partial_rails_and_estimates_never_pass(self, grade: str, limit: float, outcome: str) -> None:
        assert one(Budget(energy_mj=limit), measurement(power=power(grade))).outcome == outcome

    def test_power_shares_the_relative_interval(self) -> None:
        verdict = one(Budget(power_w=3), measurement(power=power()))
        assert verdict.outcome == "met"
        assert verdict.interval == pytest.approx((2.25, 2.75))

    def test_no_sensor_is_not_measured(self) -> None:
        verdict = one(Budget(energy_mj=99), measurement())
        assert verdict.outcome == "not_measured"
        assert "pi@rack-3" in verdict.reason

    def test_a_meter_without_uncertainty_decides_nothing(self) -> None:
        assert one(Budget(energy_mj=99), measurement(power=power(interval=None))).outcome == "inconclusive"


class TestAccuracy:
    RIGHT = (True,) * 900 + (False,) * 100
    ACCURACY = Accuracy(
        teacher=0.9,
        student_int8=0.9,
        inputs=1000,
        teacher_correct=RIGHT,
        student_int8_correct=RIGHT,
    )

    @pytest.mark.parametrize(("limit", "outcome"), [(0.87, "met"), (0.9, "inconclusive"), (0.93, "missed")])
    def test_the_wilson_interval_decides(self, limit: float, outcome: str) -> None:
        assert one(Budget(accuracy_min=limit), accuracy=self.ACCURACY).outcome == outcome

    def test_what_the_board_got_right_stands_beside_it(self) -> None:
        verdict = one(
            Budget(accuracy_min=0.5), measurement(accuracy=0.875, accuracy_inputs=512), accuracy=self.ACCURACY
        )
        assert "87.50 % of 512" in verdict.reason

    def test_the_drop_is_paired(self) -> None:
        assert one(Budget(accuracy_drop_max=0.01), accuracy=self.ACCURACY).outcome == "met"
        crossed = self.ACCURACY.model_copy(update={"teacher_correct": self.RIGHT[::-1]})
        assert one(Budget(accuracy_drop_max=0.01), accuracy=crossed).outcome == "inconclusive"

    def test_answers_that_do_not_pair_decide_nothing(self) -> None:
        lost = self.ACCURACY.model_copy(update={"teacher_correct": ()})
        verdict = one(Budget(accuracy_drop_max=0.5), accuracy=lost)
        assert verdict.outcome == "inconclusive"
        assert verdict.value == pytest.approx(0.0)

    def test_no_student_and_no_teacher_are_not_measured(self) -> None:
        assert one(Budget(accuracy_min=0.0)).outcome == "not_measured"
        no_teacher = self.ACCURACY.model_copy(update={"teacher": None})
        assert one(Budget(accuracy_drop_max=1.0), accuracy=no_teacher).outcome == "not_measured"


class TestFileSize:
    def test_a_limit_exactly_at_the_value_is_met(self) -> None:
        assert one(Budget(file_size_kib=10), file_size_bytes=10240).outcome == "met"
        assert one(Budget(file_size_kib=10), file_size_bytes=10241).outcome == "missed"

    def test_no_file_is_not_measured(self) -> None:
        assert one(Budget(file_size_kib=10)).outcome == "not_measured"


class TestExitCode:
    MET = Verdict(constraint="fps", limit=1, outcome="met", basis="measured")
    PREDICTED = MET.model_copy(update={"basis": "predicted"})
    MISSED = Verdict(constraint="fps", limit=1, outcome="missed", basis="measured")
    OPEN = Verdict(constraint="fps", limit=1, outcome="inconclusive", basis="measured")
    ABSENT = Verdict(constraint="fps", limit=1, outcome="not_measured")

    @pytest.mark.parametrize(
        ("verdicts", "require_measured", "code"),
        [
            ([MET], False, 0),
            ([MET, PREDICTED], False, 0),
            ([MET, PREDICTED], True, 6),
            ([MET], True, 0),
            ([PREDICTED, MISSED], True, 1),
            ([OPEN, MISSED, ABSENT], False, 1),
            ([MET, OPEN], False, 6),
            ([MET, ABSENT], False, 6),
            ([], False, 6),
        ],
    )
    def test_code(self, verdicts: list[Verdict], require_measured: bool, code: int) -> None:
        assert exit_code(verdicts, require_measured) == code


class TestUndecided:
    GROUPS = np.random.default_rng(0).normal(4, 0.05, (5, 50)).tolist()

    @pytest.mark.parametrize(
        ("limits", "open_"),
        [
            ({"latency_p90_ms": 5.0}, False),
            ({"latency_p90_ms": 3.0}, False),
            ({"latency_p90_ms": 4.065}, True),
            ({"latency_p99_ms": 5.0}, True),
            ({"fps": 100.0}, False),
            ({"peak_memory_mib": 5.0}, False),
        ],
    )
    def test_goes_on_only_while_a_timing_is_open(self, limits: dict[str, float], open_: bool) -> None:
        assert undecided(Budget(**limits), self.GROUPS) is open_

    def test_nothing_measured_yet_is_undecided(self) -> None:
        assert undecided(Budget(latency_p90_ms=5), [])
        assert undecided(Budget(latency_p90_ms=5), [[], []])
