"""Sampling, levels, and models from few measurements, on boards made up here."""

import math

import numpy as np
import pytest

from edgekd.core.architecture import operator_list
from edgekd.core.calibration import level_of, quiet_median, sample_levels, tail_ratios, tails
from edgekd.core.latency_calibration import fit_operator_model, validate, with_error_table
from edgekd.core.latency_features import TAP_TIERS, Kernels, cost_features, fitted_features, kernels_of
from edgekd.core.latency_model import operator_latencies_ms, plain_sum, predict
from edgekd.core.latency_transfer import transfer_latency_model
from edgekd.core.operators import Operator, OperatorList
from edgekd.core.sampled_students import sampled_students
from edgekd.load import load_profile
from edgekd.records import TimedRound

ABOUT = load_profile("rpi4").latency_models[0]
STUDENTS = sampled_students(70, 5)
LISTS = [operator_list(student.architecture()) for student in STUDENTS]


def board(tile, noise=0.02, scale=1.0, indirect=False):
    """Latencies of a made-up board whose kernels compute `tile` channels at once."""
    random = np.random.default_rng(1)
    times = []
    for operators in LISTS:
        values = cost_features(operators, "wi8_ai8", Kernels(tile, indirect))
        work = sum(amount for name, amount in values.items() if name.startswith("tiled."))
        depthwise = values.get("tiled.depthwise", 0.0)
        positions = sum(amount for name, amount in values.items() if name.startswith("positions."))
        quiet = 0.005 + 0.03 * work + 0.09 * depthwise + 0.002 * positions + 0.001 * len(operators.operators)
        times.append(scale * quiet * math.exp(random.normal(0, noise)))
    return times


def test_sampled_students_differ_reach_far_and_are_the_same_for_a_seed():
    assert sampled_students(20, 5) == STUDENTS[:20] or len({s.label for s in sampled_students(20, 5)}) == 20
    assert sampled_students(12, 1) == sampled_students(12, 1)
    macs = [operators.macs for operators in LISTS[:20]]
    assert max(macs) > 500 * min(macs)
    assert {student.space for student in STUDENTS[:12]} == {"ds-cnn", "inverted-residual"}


def test_a_level_is_the_fastest_round_and_doubted_where_the_next_lies_apart():
    assert level_of([9.0, 1.02, 5.0, 1.0]) == (1.0, pytest.approx(0.02))
    assert level_of([1.0, 2.0])[1] == 1.0
    assert level_of([1.0]) == (1.0, math.inf)


def test_the_quiet_median_is_that_of_the_quietest_spell():
    quiet, loud = [1.0, 1.01, 0.99, 1.0, 1.02] * 4, [1.8, 2.0, 1.9, 2.2, 1.7] * 16
    assert quiet_median([*loud[:40], *quiet, *loud[40:]]) == pytest.approx(1.0)
    assert quiet_median([3.0]) == 3.0
    with pytest.raises(ValueError, match="no durations"):
        quiet_median([])


def test_throttled_rounds_do_not_count_and_noisy_students_are_left_out():
    rounds = [TimedRound(student=0, round=r, median_ms=1 + 0.01 * r) for r in range(3)]
    rounds += [TimedRound(student=0, round=3, median_ms=0.2, throttled=True)]
    rounds += [TimedRound(student=1, round=r, median_ms=1.0 + r) for r in range(3)]
    rounds += [TimedRound(student=2, round=0, median_ms=1.0)]
    rounds += [TimedRound(student=5, round=r, median_ms=1.0) for r in range(3)]
    levels = sample_levels(STUDENTS[:6], rounds)
    assert [level.role for level in levels] == ["fitted", "excluded", "excluded", "held_out"]
    assert levels[0].level_ms == pytest.approx(1.0)
    assert "apart" in levels[1].reason
    assert "single" in levels[2].reason


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [Kernels(16), Kernels(8, indirect=True)])
def test_thirty_measurements_find_the_kernels_and_predict_the_others(kernels):
    times = board(kernels.tile, indirect=kernels.indirect)
    model = fit_operator_model(LISTS[:30], times[:30], ABOUT)
    assert kernels_of(model) == kernels
    table = validate(model, [s.label for s in STUDENTS[30:]], LISTS[30:], times[30:])
    judged = with_error_table(model, table)
    assert judged.held_out_mape_percent < 8
    assert judged.interval_coverage >= 0.8
    assert model.samples == 30


@pytest.mark.slow
def test_kinds_that_were_not_measured_keep_the_base_models_cost_scaled_and_doubted():
    signals = [one for one, student in zip(LISTS, STUDENTS, strict=True) if student.space == "ds-cnn"]
    base_ms = [predict(ABOUT, one).value for one in signals]
    model = fit_operator_model(signals, [2 * one for one in base_ms], ABOUT)
    assert model.costs["add"].ms_per_op == pytest.approx(2 * ABOUT.costs["add"].ms_per_op)
    assert model.hull["count.add"] == (0.0, 0.0)
    image = next(one for one, student in zip(LISTS, STUDENTS, strict=True) if one.counts()["add"])
    seen, unseen = predict(model, signals[0]), predict(model, image)
    assert math.log(unseen.high / unseen.value) > math.log(seen.high / seen.value)


def test_operators_share_the_prediction_but_for_the_overhead():
    model = fit_operator_model(LISTS[:30], board(16)[:30], ABOUT, among=(Kernels(16),))
    for one in (model, plain_sum(model)):
        parts, value = operator_latencies_ms(one, LISTS[40]), predict(one, LISTS[40]).value
        assert min(parts) >= 0
        assert sum(parts) < value
        plain = model.overhead_ms + sum(operator_latencies_ms(plain_sum(model), LISTS[40]))
        assert sum(parts) + model.overhead_ms * value / plain == pytest.approx(value)


@pytest.fixture(scope="module")
def measured_base():
    return fit_operator_model(LISTS[:40], board(16)[:40], ABOUT, among=(Kernels(16),)).model_copy(
        update={"provenance": "measured"}
    )


@pytest.mark.parametrize("measured", [3, 6, 8, 10, 12])
def test_a_model_is_carried_to_a_slower_board_with_few_measurements(measured_base, measured):
    slower = board(16, noise=0.03, scale=3.0)
    errors, coverages = [], []
    for draw in range(12):
        order = np.random.default_rng(draw).permutation(len(LISTS))
        picked, rest = order[:measured], order[measured:]
        model = transfer_latency_model(measured_base, [LISTS[i] for i in picked], [slower[i] for i in picked], ABOUT)
        table = validate(model, [STUDENTS[i].label for i in rest], [LISTS[i] for i in rest], [slower[i] for i in rest])
        judged = with_error_table(model, table)
        errors.append(judged.held_out_mape_percent)
        coverages.append(judged.interval_coverage)
    assert np.mean(errors) < 8
    assert np.mean(coverages) >= 0.9


def test_features_see_how_kernels_work_and_grow_with_the_work():
    operators = LISTS[3]
    plain, tiled = cost_features(operators, "wi8_ai8", Kernels()), cost_features(operators, "wi8_ai8", Kernels(16))
    assert set(plain) < set(tiled)
    assert "panels.depthwise" not in tiled
    for kind in ("conv", "pointwise", "depthwise"):
        assert tiled[f"tiled.{kind}"] >= plain[f"macs.{kind}"] * (1 - 1e-12)
    fitted = fitted_features(operators, "wi8_ai8", Kernels(16))
    assert not [name for name in fitted if name.startswith("macs.")]
    narrow = [one for one, student in zip(LISTS, STUDENTS, strict=True) if student.choices["kernel"] == TAP_TIERS[0]]
    assert narrow


def test_an_indirect_convolution_rounds_up_each_tap_and_a_long_sum_only_once():
    stem = OperatorList((Operator("a", "conv", 900, 90, 10, ("x",), "y", 9),), {"x": 10, "y": 100}, ("x",), ("y",))
    for kernels, sum_length in ((Kernels(2), 16), (Kernels(2, indirect=True), 9 * 8)):
        assert cost_features(stem, "wi8_ai8", kernels)["tiled.conv"] == pytest.approx(10 * 10 * sum_length / 1e6)


def test_too_few_measurements_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        transfer_latency_model(ABOUT, LISTS[:1], [1.0], ABOUT)
    with pytest.raises(ValueError, match="at least 4"):
        fit_operator_model(LISTS[:3], [1.0, 2.0, 3.0], ABOUT)


def test_tails_are_of_the_students_own_level_over_all_its_rounds():
    def timed(student, number, median, p90, throttled=False):
        return TimedRound(student=student, round=number, median_ms=median, tails_ms={"p90": p90}, throttled=throttled)

    rounds = [timed(0, r, 1.0 if r == 0 else 1.2, 1.5 + 0.01 * r) for r in range(11)]
    assert tail_ratios(rounds) == {}, "eleven rounds say too little"
    rounds += [timed(1, 0, 10.0, 10.0), timed(1, 1, 99.0, 99.0, throttled=True)]
    value, low, high = tail_ratios(rounds)["p90"]
    assert value == pytest.approx(1.545)
    assert low == pytest.approx(1.275)
    assert high == pytest.approx(1.5945)


def test_a_percentile_of_few_runs_is_not_known():
    assert list(tails([1.0] * 3)) == []
    assert list(tails([1.0] * 19)) == ["p50"]
    assert list(tails([1.0] * 20)) == ["p50", "p90"]
    assert list(tails([1.0] * 200)) == ["p50", "p90", "p95", "p99"]
