"""What must hold of predicted costs and of the fit, whatever the figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.core.calibration import tail_ratios
from edgekd.core.costs import at_percentile, file_size, peak_memory
from edgekd.core.latency_fit import (
    FREE,
    MONOTONE,
    VIEWS,
    conformal_half_width,
    fit_cost,
    fit_latency_model,
    held_out_log_errors,
)
from edgekd.core.latency_interval import DOWNWARD, UNSEEN_KIND_FOLDS, UPWARD_FOLDS, folds_above_hull
from edgekd.core.latency_model import predict, predict_features
from edgekd.core.latency_process import posterior
from edgekd.core.latency_views import MIX, additive
from edgekd.core.nonnegative import nonnegative_least_squares
from edgekd.core.operators import Operator, OperatorList, features
from edgekd.errors import ConfigurationError
from edgekd.records import TAIL_NAMES, LatencyModel, OperatorCost, TimedRound
from edgekd.records.profile import OPERATOR_KINDS

amounts = st.floats(0.0, 1e4, allow_nan=False)
costs = st.builds(OperatorCost, ms_per_mmac=amounts, ms_per_mbyte=amounts, ms_per_op=amounts)
FEATURES = [f"{quantity}.{kind}" for quantity in ("macs", "bytes", "count") for kind in OPERATOR_KINDS]
feature_rows = st.dictionaries(st.sampled_from(FEATURES), st.floats(1e-6, 1e4), min_size=1)


def model(cost: dict[str, OperatorCost] | None = None, **changes) -> LatencyModel:
    values = {
        "runtime": "tflite",
        "runtime_version": "any",
        "scheme": "wi8_ai8",
        "threads": 1,
        "provenance": "prior",
        "overhead_ms": 0.1,
        "costs": cost or {kind: OperatorCost(ms_per_mmac=0.1, ms_per_op=0.01) for kind in OPERATOR_KINDS},
        "half_width": 0.5,
        "samples": 0,
        "source": "a test",
    }
    return LatencyModel(**(values | changes))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(OPERATOR_KINDS), costs, min_size=7), feature_rows, st.data())
def test_more_work_is_never_predicted_to_take_less_time(cost, row, data):
    grown = dict(row)
    name = data.draw(st.sampled_from(FEATURES))
    grown[name] = grown.get(name, 0.0) + data.draw(st.floats(0, 1e4))
    one = model({kind: cost.get(kind, OperatorCost()) for kind in OPERATOR_KINDS})
    assert predict_features(one, grown).value >= predict_features(one, row).value


@settings(deadline=None)
@given(feature_rows, st.floats(1.0, 100.0), st.floats(0, 1))
def test_the_interval_widens_by_the_stated_rule_above_the_hull(row, times, widening):
    inside = model(hull={name: (value, value) for name, value in row.items()}, widening=widening)
    outside = {name: value * times for name, value in row.items()}
    here, there = predict_features(inside, row), predict_features(inside, outside)
    assert math.isclose(math.log(here.high / here.value), 0.5, rel_tol=1e-6)
    assert math.isclose(
        math.log(there.high / there.value), 0.5 + widening * math.log(times), rel_tol=1e-6, abs_tol=1e-9
    )
    assert math.isclose(there.high * there.low, there.value**2, rel_tol=1e-6)


@settings(deadline=None)
@given(st.floats(1.0, 1e6), st.floats(0, 1))
def test_below_the_hull_it_widens_further_down_than_up(times, widening):
    one = model(overhead_ms=0.0, hull={"macs.conv": (5.0, 5.0)}, widening=widening)
    folds = math.log(times)
    found = predict_features(one, {"macs.conv": 5.0 / times})
    assert math.log(found.value / found.low) == pytest.approx(0.5 + DOWNWARD * widening * folds, rel=1e-6, abs=1e-9)
    assert math.log(found.high / found.value) == pytest.approx(
        0.5 + widening * min(folds, UPWARD_FOLDS), rel=1e-6, abs=1e-9
    )


edges = st.just(0.0) | st.floats(1e-6, 1e3)
hulls = st.dictionaries(st.sampled_from(FEATURES), st.tuples(edges, edges).map(lambda ends: tuple(sorted(ends))))


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries({kind: costs for kind in OPERATOR_KINDS}),
    hulls,
    st.dictionaries(st.sampled_from(FEATURES), st.floats(1e-9, 1e4)),
    st.dictionaries(st.sampled_from(FEATURES), st.floats(0, 1e4), min_size=1),
    st.floats(0, 1.5),
    st.sampled_from([None, 0.95]),
)
def test_the_upper_end_never_falls_as_work_grows(cost, hull, row, more, widening, confidence):
    one = model(cost, hull=hull, widening=widening)
    grown = {name: row.get(name, 0.0) + more.get(name, 0.0) for name in row | more}
    small, large = (predict_features(one, values, confidence) for values in (row, grown))
    assert small.low <= small.value <= small.high * (1 + 1e-12)
    assert small.high <= large.high * (1 + 1e-9)


@settings(deadline=None)
@given(hulls, st.dictionaries(st.sampled_from(FEATURES), st.floats(1e-6, 1e4), min_size=1), st.floats(0, 0.9))
def test_the_upper_end_is_the_least_of_all_larger_networks(hull, row, widening):
    """The closed form against a search over how far the low features are raised."""
    one = model(hull=hull, widening=widening)
    above = folds_above_hull(one, row)

    def raised(folds: float) -> float:
        lifted = {name: max(value, hull.get(name, (0, 0))[0] * math.exp(-folds)) for name, value in row.items()}
        there = predict_features(one, lifted).value
        return there * math.exp(0.5 + widening * max(above, min(folds, UPWARD_FOLDS)))

    found = predict_features(one, row).high
    least = min(raised(above + 12 * step / 400) for step in range(401))
    assert found <= least * (1 + 1e-9)
    assert found >= least * (1 - 0.03 * 1.5)


def test_work_of_a_kind_never_seen_widens_and_absent_work_does_not():
    seen = model(hull={"macs.conv": (1.0, 2.0), "macs.dense": (0.0, 0.0)})
    assert folds_above_hull(seen, {"macs.conv": 1.5}) == 0
    assert folds_above_hull(seen, {"macs.conv": 1.5, "macs.dense": 0.1}) == UNSEEN_KIND_FOLDS
    assert folds_above_hull(seen, {"macs.dense": 0.0}) == 0


def test_a_kind_without_a_cost_is_an_error_and_not_free():
    with pytest.raises(ConfigurationError, match="no cost for operators of kind 'dense'"):
        predict_features(model({"conv": OperatorCost(ms_per_op=1.0)}), {"count.dense": 1.0})


def test_a_prediction_is_overhead_plus_the_operators():
    operators = OperatorList(
        (
            Operator("a", "conv", 2_000_000, 300, 10, ("x",), "y"),
            Operator("b", "dense", 1_000_000, 200, 5, ("y",), "z"),
        ),
        {"x": 1000, "y": 500, "z": 5},
        ("x",),
        ("z",),
    )
    one = model({"conv": OperatorCost(ms_per_mmac=0.1, ms_per_op=0.01), "dense": OperatorCost(ms_per_mbyte=2.0)})
    moved = (500 + 5 + 200) / 1e6
    assert predict(one, operators).value == pytest.approx(0.1 + 2 * 0.1 + 0.01 + moved * 2.0)
    assert predict(one, operators) == predict_features(one, features(operators, "wi8_ai8"))
    assert predict(one, operators).basis == "predicted"


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(0.01, 2), st.lists(st.floats(1, 5), max_size=4))
def test_tail_percentiles_are_in_order_and_never_below_the_median(value, half, measured):
    rounds = [
        TimedRound(student=0, round=r, median_ms=value, tails_ms=dict(zip(TAIL_NAMES.values(), tails, strict=False)))
        for r, tails in enumerate(12 * [sorted(value * ratio for ratio in measured)])
    ]
    one = model(overhead_ms=value, half_width=half).model_copy(update={"tails": tail_ratios(rounds)})
    median = predict_features(one, {"count.conv": 1.0})
    tails = [median, *(at_percentile(one, median, percentile) for percentile in (50, 90, 95, 99))]
    assert measured or tails[1] == median, "a profile that was never calibrated says nothing of what disturbs it"
    for below, above in zip(tails, tails[1:], strict=False):
        assert below.value <= above.value
        assert below.high <= above.high
        assert above.low <= above.value <= above.high


def test_memory_and_file_grow_with_weights_and_int8_is_the_smaller():
    def one(weights: int) -> OperatorList:
        return OperatorList(
            (Operator("a", "dense", weights, weights, 10, ("x",), "y"),), {"x": 100, "y": 10}, ("x",), ("y",)
        )

    small, large = one(1_000), one(1_000_000)
    for estimate in (peak_memory, lambda operators, scheme: file_size(operators, scheme, "tflite")):
        assert estimate(small, "wi8_ai8").value < estimate(large, "wi8_ai8").value < estimate(large, "fp32").value
        for scheme in ("wi8_ai8", "fp32"):
            assert estimate(large, scheme).low < estimate(large, scheme).value < estimate(large, scheme).high
    assert peak_memory(small, "wi8_ai8", "onnx").value > peak_memory(small, "wi8_ai8", "tflite").value


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(1, 8), st.integers(0, 10_000))
def test_nonnegative_least_squares_meets_its_optimality_conditions(rows, columns, seed):
    random = np.random.default_rng(seed)
    matrix, target = random.normal(size=(rows, columns)), random.normal(size=rows)
    for start in (None, np.maximum(random.normal(size=columns), 0.0)):
        weights = nonnegative_least_squares(matrix, target, start)
        gradient = matrix.T @ (target - matrix @ weights)
        assert (weights >= 0).all()
        assert gradient.max() <= 1e-6 * max(1.0, np.abs(matrix.T @ target).max())
        assert np.abs(gradient * weights).max() <= 1e-6 * max(1.0, np.abs(target).max() ** 2 * rows)


def board(seed: int, count: int = 24, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Features and noisy costs of made-up models on a made-up board."""
    random = np.random.default_rng(seed)
    table = np.exp(random.uniform(-1, 3, size=(count, 3)))
    table[:, 2] *= random.random(count) < 0.6
    true = 0.5 + table @ np.array([1.0, 0.3, 0.2])
    return table, true * np.exp(random.normal(0, noise, count))


def strange_board(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Costs that fall where work grows, and that no sum of shares can say."""
    table, _ = board(seed)
    return table, np.exp(np.random.default_rng(seed).normal(0, 1, len(table))) * (1 + table[:, 0] / (1 + table[:, 1]))


MONOTONE_VIEWS = {"additive": additive} | {name: VIEWS[name] for name in MONOTONE}


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(MONOTONE_VIEWS)), st.integers(0, 1000), st.integers(0, 2), st.floats(1.0, 50.0))
def test_monotone_views_are_positive_and_never_fall_as_a_feature_grows(name, seed, column, times):
    for table, true in (board(seed), strange_board(seed)):
        predict_cost = MONOTONE_VIEWS[name](table, true)
        shrunk = table * np.random.default_rng(seed).uniform(0, 2, table.shape)
        for small in (table, shrunk):
            grown = small.copy()
            grown[:, column] *= times
            assert (predict_cost(grown) >= predict_cost(small) * (1 - 1e-9)).all()
        assert (predict_cost(np.zeros((1, 3))) > 0).all()


def test_a_process_is_nowhere_steeper_than_it_says():
    random = np.random.default_rng(0)
    at = random.dirichlet(np.ones(4), 20)
    process = posterior(at, random.normal(0, 0.3, 20), MIX)
    points = random.dirichlet(np.ones(4), 3000)
    step = 1e-5 * random.normal(size=points.shape)
    slopes = np.abs(process(points + step) - process(points)) / np.linalg.norm(step, axis=1)
    assert 0.05 * process.steepest() < slopes.max() <= process.steepest()


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 2), st.floats(1.0, 50.0))
def test_the_ends_are_monotone_and_hold_what_is_predicted_whatever_was_measured(seed, column, times):
    table, true = strange_board(seed)
    fitted = fit_cost(table, true)
    grown = table.copy()
    grown[:, column] *= times
    for small, large in zip(fitted.ends(table), fitted.ends(grown), strict=True):
        assert (large >= small * (1 - 1e-9)).all()
    low, high = fitted.ends(grown)
    found = fitted.predict(grown)
    assert ((low * (1 - 1e-9) <= found) & (found <= high * (1 + 1e-9))).all()
    assert fitted.views in (FREE, MONOTONE)
    assert fitted.monotone == (fitted.views == MONOTONE)


def test_the_fit_learns_an_additive_board_to_about_its_noise():
    table, true = board(1, count=80)
    fitted = fit_cost(table[:24], true[:24])
    error = np.abs(fitted.predict(table[24:]) / true[24:] - 1)
    assert error.mean() < 0.10
    assert (fitted.predict(table * 1e6) > 0).all()


def test_the_fit_is_the_same_in_any_unit_and_every_time():
    table, true = board(2)
    fitted, again, scaled = fit_cost(table, true), fit_cost(table, true), fit_cost(table, true * 1000)
    assert np.array_equal(fitted.predict(table), again.predict(table))
    assert np.allclose(scaled.predict(table), fitted.predict(table) * 1000, rtol=1e-6)
    assert scaled.half_width == pytest.approx(fitted.half_width, rel=1e-6)


def test_a_stated_ninety_percent_interval_holds_in_about_ninety_percent():
    inside = []
    for seed in range(20):
        table, true = board(seed, count=60, noise=0.1)
        fitted = fit_cost(table[:20], true[:20], additive_only=True)
        inside.append(fitted.holds(table[20:], true[20:]))
    assert 0.85 <= float(np.mean(inside)) <= 0.97


@settings(deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=4, max_size=50), st.floats(0.5, 0.95))
def test_the_half_width_holds_at_least_the_stated_share_of_the_errors_it_comes_from(errors, confidence):
    half = conformal_half_width(np.array(errors), confidence)
    assert np.mean(np.abs(errors) <= half) >= min(confidence, 1.0)


def test_groups_left_out_make_a_wider_interval_where_groups_differ():
    random = np.random.default_rng(3)
    table, true = board(3, count=30, noise=0.02)
    groups = [f"family {index % 5}" for index in range(30)]
    shift = {name: random.normal(0, 0.4) for name in set(groups)}
    true = true * np.exp([shift[name] for name in groups])
    assert fit_cost(table, true, groups=groups).half_width >= fit_cost(table, true).half_width * 0.9
    with pytest.raises(ValueError, match="one group"):
        held_out_log_errors(additive, table, true, ["only"] * 30)


@pytest.mark.parametrize(
    ("table", "true"),
    [
        (np.ones((3, 2)), np.ones(3)),
        (np.ones((5, 2)), np.zeros(5)),
        (-np.ones((5, 2)), np.ones(5)),
        (np.full((5, 2), np.nan), np.ones(5)),
        (np.ones((5, 2)), np.ones(4)),
    ],
)
def test_figures_that_cannot_be_are_refused(table, true):
    with pytest.raises(ValueError, match="needs at least 4|must be finite"):
        fit_cost(table, true)


def test_a_fitted_latency_model_is_a_record_that_predicts_what_it_was_fitted_on():
    random = np.random.default_rng(5)
    rows = [
        {
            "macs.conv": random.uniform(1, 50),
            "count.conv": float(random.integers(2, 20)),
            "bytes.add": random.uniform(0, 2),
        }
        for _ in range(30)
    ]
    latencies = [0.2 + 0.1 * row["macs.conv"] + 0.02 * row["count.conv"] for row in rows]
    fitted = fit_latency_model(rows, latencies, model(provenance="measured"))
    assert fitted.provenance == "measured"
    assert fitted.samples == 30
    assert fitted.held_out_mape_percent < 5
    assert fitted.hull["count.conv"] == (
        min(row["count.conv"] for row in rows),
        max(row["count.conv"] for row in rows),
    )
    for row, latency in zip(rows, latencies, strict=True):
        assert predict_features(fitted, row).value == pytest.approx(latency, rel=0.15)
    assert LatencyModel.model_validate_json(fitted.model_dump_json()) == fitted


def test_a_profiles_model_predicts_what_the_fit_that_the_benchmark_scores_predicts():
    """One fit: stored as data, loaded again, asked by feature names."""
    table, true = board(8, count=40)
    names = ("macs.conv", "bytes.conv", "count.conv")
    rows = [dict(zip(names, row, strict=True)) for row in table]
    stored = fit_latency_model(rows[:20], true[:20], model(provenance="measured"))
    loaded = LatencyModel.model_validate_json(stored.model_dump_json())
    # The columns of a stored fit are in alphabetical order.
    order = [names.index(name) for name in sorted(names)]
    fitted = fit_cost(table[:20][:, order], true[:20], monotone=True)
    assert fitted.monotone
    assert dict(zip(loaded.measured.views, loaded.measured.weights, strict=True)) == fitted.views
    expected = fitted.predict(table[20:][:, order])
    assert [predict_features(loaded, row).value for row in rows[20:]] == pytest.approx(list(expected), rel=1e-9)
    assert loaded.half_width == pytest.approx(fitted.half_width)
