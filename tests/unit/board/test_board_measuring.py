"""What the host makes of what a board said: contention, outputs, operators, plans."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.board.agent.clocks import _fastest_cpus
from edgekd.board.agent.profiling import WARMUP_RUNS, operators_of
from edgekd.board.agent.timing import time_paced_chunk
from edgekd.board.measuring.agent_lines import ContentionLine, MeterLine, OutputsLine, PowerLine, WindowLine
from edgekd.board.measuring.energy_pass import _Heard
from edgekd.board.measuring.extra_passes import RawOutputs, compare_outputs
from edgekd.board.measuring.timed_pass import contention_of
from edgekd.board.power.external import clock_shift, parse_readings
from edgekd.errors import BoardError, ConfigurationError
from edgekd.pipeline.boards.measuring import MeasuringOptions, plan_for


def contention(**values):
    return ContentionLine(kind="contention", **{"runs": 1000, **values})


def test_contention_is_summed_over_processes():
    assert contention_of([], 10**9, 4) is None
    lines = [contention(ran_ns=600, waited_ns=100, preempted=5), contention(ran_ns=200, waited_ns=100)]
    found = contention_of(lines, 10**9, 4)
    assert found.preempted_share == 5 / 2000
    assert found.waited_share == 0.2
    assert not found.swapped
    lines.append(contention(major_faults=3, preempted=10**6))
    assert not contention_of(lines, 10**9, 4).swapped
    assert contention_of(lines, 10**9, 4).preempted_share == 1.0
    lines.append(contention(swapped_pages=7, stolen_ns=2 * 10**9))
    assert contention_of(lines, 10**9, 4).swapped
    assert contention_of(lines, 10**9, 4).stolen_share == 0.5


def lines(values, rows, part=100):
    data = values.tobytes()
    return [
        OutputsLine(
            kind="outputs", rows=rows, dtype=str(values.dtype), data=base64.b64encode(data[i : i + part]).decode()
        )
        for i in range(0, len(data), part)
    ]


@given(st.lists(st.integers(-128, 127), min_size=4, max_size=400), st.integers(-3, 3))
def test_outputs_travel_and_their_distance_is_in_steps(values, shift):
    board = np.array(values[: len(values) // 4 * 4], np.int8)
    host = np.clip(board.astype(int) + shift, -128, 127).astype(np.int8)
    got = RawOutputs.of(lines(board, 4))
    assert np.array_equal(got.values, board)
    parity = compare_outputs(got, RawOutputs(4, host, "2.3.0"))
    steps = np.abs(board.astype(int) - host.astype(int))
    assert parity.max_abs_lsb == steps.max()
    assert parity.bit_exact == (steps.max() == 0)
    assert parity.identical == pytest.approx(np.mean(steps == 0))


def test_outputs_that_are_damaged_or_of_another_shape():
    with pytest.raises(BoardError, match="7 output values for 2 inputs"):
        RawOutputs.of(lines(np.zeros(7, np.int8), 2))
    with pytest.raises(BoardError, match="damaged"):
        RawOutputs.of([OutputsLine(kind="outputs", rows=1, dtype="float32", data="AAA=")])
    assert RawOutputs.of([]) is None
    one, other = RawOutputs(1, np.zeros(4, np.int8)), RawOutputs(1, np.zeros(5, np.int8))
    assert compare_outputs(one, other) is None
    floats = compare_outputs(RawOutputs(1, np.ones(4, np.float32)), RawOutputs(1, np.ones(4, np.float32), "1"))
    assert floats.bit_exact
    assert floats.max_abs_lsb is None


def test_what_a_hostile_board_sends_is_bounded():
    with pytest.raises(BoardError, match="more outputs"):
        RawOutputs.of(lines(np.zeros(400_000, np.float64), 1, part=12_000))
    heard = _Heard(segments=[([], [])])
    with pytest.raises(BoardError, match="different number"):
        heard.take(PowerLine(kind="power", at_ns=(1, 2), values=(1.0,), missed=0))
    window = {"kind": "window", "phase": "idle", "runs": 0, "busy_ns": 0, "own_ns": 0}
    with pytest.raises(BoardError, match="ends before it begins"):
        heard.take(WindowLine(**window, begin_ns=5, end_ns=5))
    meter = {"kind": "meter", "meter": "ina3221", "grade": "B", "resolution_w": 0, "gain": 0, "counts": "watts"}
    heard.take(MeterLine(**meter, rail="VDD_IN"))
    with pytest.raises(BoardError, match="changed from ina3221 VDD_IN"):
        heard.take(MeterLine(**meter, rail="VDD_SOC\x1b[31m"))


def test_a_profile_of_onnxruntime_becomes_one_entry_a_node():
    events = [{"cat": "Session", "name": "model_run", "dur": 90}]
    for run in range(WARMUP_RUNS + 2):
        late = run >= WARMUP_RUNS
        for node, kind, duration in (("conv1", "QLinearConv", 10 if late else 1000), ("gemm", "QGemm", 2)):
            events.append({"cat": "Node", "name": f"{node}_kernel_time", "dur": duration, "args": {"op_name": kind}})
            events.append({"cat": "Node", "name": f"{node}_fence_before", "dur": 5, "args": {"op_name": kind}})
    assert operators_of(json.dumps(events)) == [
        {"name": "conv1", "kind": "QLinearConv", "mean_us": 10.0, "runs": 2},
        {"name": "gemm", "kind": "QGemm", "mean_us": 2.0, "runs": 2},
    ]


def test_inputs_that_come_at_a_rate_are_not_run_faster_and_late_ones_are_counted():
    calls = []
    model = SimpleNamespace(feed=calls.append, invoke=lambda: None)
    period_ns = 5_000_000
    position, took_ns, starts, durations, missed = time_paced_chunk(model, [["a"], ["b"]], 0, 1, period_ns, 60_000_000)
    assert position == len(starts) == len(durations) == len(calls)
    assert took_ns >= 60_000_000
    assert position <= took_ns // period_ns + 1
    assert calls[:3] == [["a"], ["b"], ["a"]]
    slow = SimpleNamespace(feed=lambda arrays: None, invoke=lambda: sum(range(300_000)))
    *_, missed = time_paced_chunk(slow, [["a"]], 0, 1, 100_000, 20_000_000)
    assert missed > 0


def test_the_fastest_cores_are_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=True)
    for cpu, khz in enumerate((1800000, 2400000, 1800000, 2400000)):
        folder = tmp_path / f"devices/system/cpu/cpu{cpu}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "cpuinfo_max_freq").write_text(f"{khz}\n")
    assert _fastest_cpus(tmp_path, 1) == {3}
    assert _fastest_cpus(tmp_path, 3) == {1, 2, 3}
    assert _fastest_cpus(tmp_path, 9) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("name", "runs", "seconds", "most"),
    [("quick", 64, 10, 30), ("standard", 662, 60, 180), ("mlperf", 1024, 600, 1200), ("sustained", 662, 300, 2400)],
)
def test_plans_promise_what_the_documents_say(name, runs, seconds, most):
    plan = plan_for(name, "tflite", 2, MeasuringOptions(power="none"))
    assert (plan.min_runs, plan.min_seconds, plan.max_seconds) == (runs, seconds, most)
    if name == "sustained":
        assert plan.settle_seconds + plan.min_seconds == 1800
    assert plan.energy_windows >= 5
    assert plan.energy_window_seconds >= 10


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (MeasuringOptions(max_seconds=59), "plan standard takes at least"),
        (MeasuringOptions(rate_hz=0), "no rate"),
        (MeasuringOptions(power="ina999"), "no meter"),
        (MeasuringOptions(power="external:no-such-program-anywhere --x"), "no program"),
        (MeasuringOptions(power="replay:/no/such/file"), "No such file"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_any_board_is_bothered(options, match):
    with pytest.raises(ConfigurationError, match=match):
        plan_for("standard", "tflite", 1, options)


def test_options_reach_the_plan():
    options = MeasuringOptions(90, 30.0, "declared", True, "auto", "net")
    plan = plan_for("standard", "onnx", 1, options)
    assert (plan.max_seconds, plan.rate_hz, plan.background) == (90, 30.0, "declared")
    assert (plan.pin_clocks, plan.meter, plan.energy_judged) == (True, "auto", "net")


def test_readings_of_an_external_meter():
    readings = parse_readings(["# gain=0.005", "seconds,watts", "", "1.0,2.5", "1.0,2.6", "1.5, 2.7"], "x")
    assert (readings.seconds, readings.watts) == ([1.0, 1.5], [2.5, 2.7])
    assert readings.number("gain", 0.02, "x") == 0.005
    assert readings.number("resolution_w", 0.5, "x") == 0.5
    for wrong, match in (("1,2,3", "not a line"), ("a,b", "not a line"), ("nan,1", "not a line")):
        with pytest.raises(ConfigurationError, match=match):
            parse_readings([wrong], "x")
    with pytest.raises(ConfigurationError, match="goes back"):
        parse_readings(["2,1", "1,1"], "x")
    with pytest.raises(ConfigurationError, match="no number"):
        parse_readings(["# gain=much", "1,1"], "x").number("gain", 0.02, "x")
    with pytest.raises(ConfigurationError, match="neither"):
        clock_shift(-1e9, "x")
