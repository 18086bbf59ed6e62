"""Energy adds, intervals cover the truth, and a meter that fails is found out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.core.energy import (
    ClockOffset,
    MeterError,
    Window,
    estimate_energy,
    estimate_offset,
    joined_offset,
    power_of_counter,
    problems_of_trace,
    trapezoid_joules,
)

EXACT = MeterError(resolution_w=0.0, gain=0.0)


@st.composite
def traces(draw):
    steps = draw(st.lists(st.floats(0.001, 2.0), min_size=2, max_size=60))
    times = np.cumsum([draw(st.floats(-100, 100)), *steps])
    watts = draw(st.lists(st.floats(0, 50), min_size=len(times), max_size=len(times)))
    return times, np.array(watts)


@given(traces(), st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)))
def test_energy_adds_over_split_traces(trace, places):
    times, watts = trace
    a, b, c = sorted(times[0] + place * (times[-1] - times[0]) for place in places)
    a, b, c = (min(max(x, times[0]), times[-1]) for x in (a, b, c))
    whole = trapezoid_joules(times, watts, a, c)
    parts = trapezoid_joules(times, watts, a, b) + trapezoid_joules(times, watts, b, c)
    assert parts == pytest.approx(whole, rel=1e-9, abs=1e-9)


@given(traces(), st.floats(-1e4, 1e4), st.floats(0.1, 10))
def test_energy_does_not_hang_on_the_clocks_origin_and_scales_with_power(trace, shift, factor):
    times, watts = trace
    energy = trapezoid_joules(times, watts, times[0], times[-1])
    moved = times + shift
    if (np.diff(moved) > 0).all():
        assert trapezoid_joules(moved, watts, moved[0], moved[-1]) == pytest.approx(energy, rel=1e-6, abs=1e-6)
    assert trapezoid_joules(times, watts * factor, times[0], times[-1]) == pytest.approx(energy * factor, abs=1e-9)


def test_a_trace_that_does_not_cover_the_window_is_refused():
    with pytest.raises(ValueError, match="does not cover"):
        trapezoid_joules([0, 1], [1, 1], 0.5, 1.5)
    with pytest.raises(ValueError, match="forward"):
        trapezoid_joules([0, 1, 1], [1, 1, 1], 0, 1)


def test_power_of_a_counter_keeps_its_energy():
    times = np.array([0.0, 0.5, 1.5, 2.0])
    middles, watts = power_of_counter(times, [0.0, 1.0, 5.0, 5.5])
    assert middles.tolist() == [0.25, 1.0, 1.75]
    assert watts.tolist() == [2.0, 4.0, 1.0]


IDLE = [Window(1 + 10 * i, 11 + 10 * i) for i in range(5)]


def running(runs=400):
    return [Window(53 + 10 * i, 63 + 10 * i, runs) for i in range(5)]


def profile(times, seed, idle_w, active_w, noise, hum_w=0.0):
    """What a board draws: idle, then work with a hum at the mains' harmonic; and noise of its own."""
    random = np.random.default_rng(seed)
    true = np.where(times < 52, idle_w, active_w + hum_w * np.sin(2 * np.pi * 7.3 * times))
    return true, true * (1 + random.normal(0, noise, len(times)))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rate_hz=st.sampled_from([2.0, 10.0, 100.0]),
    idle_w=st.floats(0.5, 10),
    extra_w=st.floats(0.0, 20),
    noise=st.floats(0.001, 0.05),
    step_w=st.sampled_from([0.001, 0.01, 0.05]),
    gain=st.floats(-0.015, 0.015),
)
def test_energy_per_inference_is_within_two_percent_and_the_interval_covers_the_truth(
    seed, rate_hz, idle_w, extra_w, noise, step_w, gain
):
    times = np.arange(0, 105, 1 / rate_hz) + np.random.default_rng(seed + 1).uniform(0, 0.1 / rate_hz)
    times = np.concatenate(([0.0], times[times > 0]))
    true, noisy = profile(times, seed, idle_w, idle_w + extra_w, noise, hum_w=0.1 * extra_w)
    read = np.round(noisy * (1 + gain) / step_w) * step_w
    found = estimate_energy(times, read, IDLE, running(), MeterError(step_w, 0.015))
    truth_mj = 1e3 * (idle_w + extra_w) * 10 / 400
    low, high = found.interval_mj
    assert low <= truth_mj <= high
    # Beyond the meter's own gain, which is no fault of the arithmetic, the estimate is within 2 %.
    assert abs(found.energy_mj / (1 + gain) - truth_mj) <= 0.02 * truth_mj + 1e3 * step_w / 2 * 10 / 400 + (
        4 * noise * truth_mj / np.sqrt(50 * rate_hz)
    )
    assert found.net_interval_mj[0] <= truth_mj - 1e3 * idle_w * 10 / 400 <= found.net_interval_mj[1]
    assert found.net_mj <= found.energy_mj
    assert not [problem for problem in found.problems if "stuck" not in problem]


@given(st.floats(0, 0.5), st.floats(0, 0.1), st.floats(0, 0.05))
def test_the_interval_widens_with_every_source_of_error(resolution, gain, clock):
    times = np.arange(0, 105, 0.1)
    _, read = profile(times, 3, 2.0, 5.0, 0.02)

    def width(error):
        low, high = estimate_energy(times, read, IDLE, running(), error).interval_mj
        return high - low

    assert width(MeterError(resolution, gain, clock)) >= width(EXACT)


def trace(seed=0):
    times = np.arange(0, 105, 0.1)
    _, read = profile(times, seed, 2.0, 5.0, 0.01)
    return times, read


def problems(times, watts, step_w=0.001):
    return problems_of_trace(times, watts, [*IDLE, *running()], step_w)


def test_a_sound_trace_has_no_problems():
    assert problems(*trace()) == []
    found = estimate_energy(*trace(), IDLE, running(), EXACT)
    assert found.problems == ()
    assert found.rate_hz == pytest.approx(10)
    assert found.idle_w == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("name", ["stopped at the end", "stopped between", "stuck", "stuck in one window"])
def test_a_meter_that_stops_or_sticks_is_found_out(name):
    times, watts = trace()
    if name == "stopped at the end":
        times, watts = times[:900], watts[:900]
    elif name == "stopped between":
        keep = (times < 70) | (times > 71)
        times, watts = times[keep], watts[keep]
    elif name == "stuck":
        watts = np.full_like(watts, 4.0)
    else:
        watts[times >= 72.9] = watts[729]
    assert any(name.split()[0] in problem for problem in problems(times, watts))


@pytest.mark.parametrize("wild", [50.0, 0.01, float("nan"), -3.0])
def test_a_meter_that_jumps_is_found_out(wild):
    times, watts = trace()
    watts[700] = wild
    (problem,) = problems(times, watts)
    assert any(word in problem for word in ("jumps", "no numbers", "negative"))


def test_a_level_that_moves_between_windows_is_found_out():
    times, watts = trace()
    watts[times > 82] *= 1.6
    assert any("jumps" in problem for problem in problems(times, watts))


def test_a_coarse_meter_may_repeat_itself_but_not_for_ever():
    times, watts = trace()
    assert problems(times, np.round(watts), step_w=1.0) == []
    assert problems(times, np.full_like(watts, 4.0), step_w=1.0)


def test_too_few_or_too_short_windows_are_a_problem():
    times, watts = trace()
    assert any("idle" in text for text in estimate_energy(times, watts, IDLE[:4], running(), EXACT).problems)
    short = [Window(window.begin_s, window.begin_s + 9, 360) for window in running()]
    assert any("running" in text for text in estimate_energy(times, watts, IDLE, short, EXACT).problems)
    with pytest.raises(ValueError, match="no inference"):
        estimate_energy(times, watts, IDLE, running(0), EXACT)


@given(st.floats(-1e5, 1e5), st.lists(st.tuples(st.floats(0, 0.2), st.floats(0, 0.2)), min_size=1, max_size=20))
def test_the_offset_of_two_clocks_is_within_its_error(offset, delays):
    exchanges, now = [], 0.0
    for there, back in delays:
        exchanges.append((now, now + there + offset, now + there + back))
        now += there + back + 0.01
    found = estimate_offset(exchanges)
    assert abs(found.offset_s - offset) <= found.error_s + 1e-6
    with pytest.raises(ValueError, match="exchange"):
        estimate_offset([])


def test_two_offsets_and_their_drift():
    joined = joined_offset(ClockOffset(1.0, 0.1), ClockOffset(1.2, 0.2))
    assert joined.offset_s == pytest.approx(1.1)
    assert joined.error_s == pytest.approx(0.3)


def test_no_readings_between_windows_are_no_fault():
    times, watts = trace()
    between = (times > 51.3) & (times < 52.7)
    assert problems(times[~between], watts[~between]) == []
