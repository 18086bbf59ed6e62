"""Settling, arrival rates, caps and several boards, through the agent and at the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import edgekd
from interrupted import FIXTURES, board_model, short_plan

from edgekd.board.connection.open import open_session
from edgekd.board.measuring.extra_passes import host_outputs
from edgekd.board.measuring.measure import measure
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import provision
from edgekd.store import hash_file

MODEL = FIXTURES / "tiny_int8.tflite"


@pytest.fixture(autouse=True)
def local(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "inputs.npz"
    np.savez(path, inputs=np.random.default_rng(1).standard_normal((40, 3, 1, 16)).astype(np.float32))
    return path


def measured(plan, inputs=None, **arguments):
    with open_session("local") as session:
        environment = provision(session, plan.runtime)
        files = {MODEL.name: MODEL, **({inputs.name: inputs} if inputs else {})}
        folder = deploy_files(session, files, "r")
        remote = f"{folder}/{inputs.name}" if inputs else None
        return measure(session, environment, board_model(folder, MODEL), plan, remote, **arguments)


def test_what_came_before_the_board_had_settled_is_kept_but_not_judged():
    plan = short_plan("tflite", settle_seconds=0.6, min_seconds=0.4, max_seconds=1.2)
    result = measured(plan)
    early = [at for at in result.sample_times_s if at < result.judged_from_s]
    assert early
    assert result.judged_from_s >= 0.6
    assert set(result.sample_processes) == {0, 1, 2}
    judged = [
        sample
        for sample, at in zip(result.samples_ms, result.sample_times_s, strict=True)
        if at >= result.judged_from_s
    ]
    assert result.latency_p50_ms == pytest.approx(float(np.percentile(judged, 50)))
    assert result.runs >= len(judged)


def test_a_plan_ends_at_its_cap_though_its_runs_are_not_reached():
    result = measured(short_plan("tflite", min_runs=10**9, min_seconds=0.2, max_seconds=0.8))
    assert result.facts["method"]["timed_seconds"] < 4.0
    assert result.runs < 10**9


def test_arrivals_at_a_rate_are_kept_and_misses_counted():
    result = measured(short_plan("tflite", rate_hz=100.0, min_runs=40, min_seconds=0.2, max_seconds=2.0))
    assert result.plan.rate_hz == 100.0
    assert 0 <= result.deadline_misses <= result.runs
    assert result.runs <= 100 * result.facts["method"]["timed_seconds"] + 2
    assert result.contention is not None


def test_the_boards_outputs_are_compared_with_this_machines(stored):
    reference = host_outputs(MODEL, hash_file(MODEL), stored, "tflite", 1)
    result = measured(short_plan("tflite"), stored, reference=reference)
    assert result.host_parity.bit_exact
    assert (result.host_parity.inputs, result.host_parity.max_abs_lsb) == (40, 0)
    assert result.host_parity.host_runtime_version == result.runtime_version
    assert len(result.end_to_end_ms) >= 64
    assert result.end_to_end_p50_ms > result.latency_p50_ms
    assert result.per_operator == ()
    assert "LiteRT" in result.facts["method"]["per_operator"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--max-seconds", "5"), "--max-seconds 5 is below"),
        (("--power", "ina999"), "is no meter"),
        (("--power", "replay:nothing.csv"), "nothing.csv"),
        (("--rate-hz", "-3"), "no rate"),
    ],
)
def test_options_that_cannot_be_are_exit_code_3(tmp_path, arguments, words):
    result = edgekd("measure", MODEL, "--board", "local", "--plan", "quick", *arguments, cwd=tmp_path)
    assert result.returncode == 3
    assert words in result.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
def test_two_boards_are_judged_together(tmp_path, stored):
    result = edgekd(
        "measure",
        MODEL,
        *("--board", "local", "--board", "local"),
        *("--plan", "quick", "--profile", "host", "--inputs", stored, "--power", "none", "--json"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    assert len(measured["units"]) == 2
    latency = next(verdict for verdict in measured["verdicts"] if verdict["constraint"] == "latency_p90_ms")
    assert "2 units" in latency["reason"]
    values = [unit["latency_p90_ms"] for unit in measured["units"]]
    assert latency["value"] == pytest.approx(max(values), rel=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_power_at_the_command_line(tmp_path):
    trace = tmp_path / "trace.csv"
    random = np.random.default_rng(0)
    trace.write_text("".join(f"{at:.2f},{2.5 + random.normal(0, 0.01):.5f}\n" for at in np.arange(0, 400, 0.1)))
    result = edgekd(
        "measure",
        MODEL,
        *("--board", "local", "--plan", "quick", "--power", f"replay:{trace}", "--background", "declared", "--json"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    power = json.loads(result.stdout)["measurement"]["power"]
    assert set(power) >= {"meter", "grade", "idle_w", "mean_w", "energy_mj", "interval_mj", "trace"}
    assert power["grade"] == "D"
    assert power["mean_w"] == pytest.approx(2.5, rel=0.01)
    assert power["problems"] == []


def test_disturbed_processes_are_made_up_for_and_set_aside():
    asked = []

    def disturbed(found):
        asked.append(found)
        return len(asked) <= 2

    result = measured(short_plan("tflite", min_seconds=0.4, max_seconds=4.0), disturbed=disturbed)
    assert result.disturbed_processes == (0, 1)
    assert set(result.sample_processes) == {0, 1, 2, 3}
    quiet = [
        sample
        for sample, process in zip(result.samples_ms, result.sample_processes, strict=True)
        if process not in result.disturbed_processes
    ]
    assert result.latency_p90_ms == pytest.approx(float(np.percentile(quiet, 90)))
    assert any("2 of 4 processes" in note for note in result.notes)


def test_where_nothing_is_undisturbed_in_time_all_is_judged():
    result = measured(short_plan("tflite", min_seconds=0.4, max_seconds=1.2), disturbed=lambda found: True)
    assert result.disturbed_processes == ()
    assert len(set(result.sample_processes)) > 2
    assert result.facts["method"]["timed_seconds"] < 4.0
