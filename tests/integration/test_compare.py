"""`edgekd measure A --compare B`: two files in turn, and which is faster."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import edgekd
from interrupted import FIXTURES, board_model, short_plan

from edgekd.board.connection.open import open_session
from edgekd.board.measuring.compare import Contender, compare
from edgekd.board.measuring.timed_pass import TimedPass
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import provision

FAST, SLOW = FIXTURES / "tiny_int8.tflite", FIXTURES / "tiny_int8.onnx"


@pytest.fixture(autouse=True)
def local(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))


def test_two_runtimes_in_turn_and_a_pair_that_was_disturbed():
    asked = []

    def disturbed(found):
        asked.append(found)
        return len(asked) == 1

    with open_session("local") as session:
        sides = []
        for path in (FAST, SLOW):
            plan = short_plan(path.suffix[1:], processes=5, min_seconds=0.25, max_seconds=10.0)
            folder = deploy_files(session, {path.name: path}, "r")
            environment = provision(session, plan.runtime)
            sides.append(Contender(environment, board_model(folder, path), plan, None, TimedPass()))
        found = compare(session, sides[0], sides[1], lambda message: None, disturbed)
    assert found.order.startswith("ABBAABBA")
    assert found.disturbed_pairs == 1
    assert found.median_ratio.pairs == len(found.order) // 2 - 1
    assert found.median_ratio.verdict == "faster"
    assert found.median_ratio.interval[1] < 1
    assert len(found.first.medians_ms) == len(found.second.medians_ms) == len(found.order) // 2
    assert set(found.first.sample_processes) == set(range(len(found.order) // 2))
    assert found.exit_code == 0


@pytest.mark.slow
def test_at_the_command_line(tmp_path):
    result = edgekd("measure", SLOW, "--compare", FAST, "--board", "local", "--plan", "quick", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["median_ratio"]["verdict"] == "slower"
    assert (found["first"]["runtime"], found["second"]["runtime"]) == ("onnx", "tflite")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--compare", SLOW), 3, "the same file"),
        (("--compare", "nothing.onnx"), 3, "nothing.onnx"),
        (("--compare", FAST, "--rate-hz", "30"), 3, "--rate-hz"),
        (("--compare", FAST, "--profile", "host"), 2, "leave --profile out"),
    ],
)
def test_what_cannot_be_compared_is_told_before_the_board(tmp_path, arguments, code, words):
    result = edgekd("measure", SLOW, "--board", "local", *arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("arguments", [(), ("--compare", FAST)])
def test_inputs_that_are_no_archive_are_named_with_their_flag_before_the_board(tmp_path, arguments):
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("bad.npz", "other.npz"):
        command = ("measure", SLOW, "--board", "nobody@127.0.0.1:9", *arguments, "--inputs", name)
        result = edgekd(*command, cwd=tmp_path)
        assert result.returncode == 3, result.stderr
        assert f"--inputs {name} has no readable array 'inputs'" in result.stderr
        assert "connect" not in result.stderr


def test_inputs_that_do_not_fit_the_model_are_named_with_their_flag(tmp_path):
    np.savez(tmp_path / "wide.npz", inputs=np.zeros((2, 5, 1, 16), np.float32))
    result = edgekd("measure", FAST, "--board", "nobody@127.0.0.1:9", "--inputs", "wide.npz", cwd=tmp_path)
    assert result.returncode == 3, result.stderr
    assert "--inputs wide.npz: the model's input" in result.stderr
    assert "local" not in result.stderr
