"""Deploying and measuring through a real OpenSSH server and on this machine, and what interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from interrupted import FIXTURES, board_model, measure_long, short_plan
from ssh_server import SshServer, children, processes_naming, wait_until

from edgekd.board.connection.open import open_session
from edgekd.board.measuring.measure import measure
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import provision
from edgekd.errors import BoardError, BuildError, ConfigurationError
from edgekd.records import Measurement

INTERRUPTED = Path(__file__).parent / "interrupted.py"
PYTHON_HERE = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}


@pytest.fixture
def test_inputs(tmp_path):
    generator = np.random.default_rng(1)
    path = tmp_path / "test_inputs.npz"
    inputs = generator.standard_normal((300, 3, 1, 16)).astype(np.float32)
    np.savez(path, inputs=inputs, labels=generator.integers(0, 4, 300))
    return path


@pytest.fixture
def python_sshd(make_sshd):
    return make_sshd(PYTHON_HERE)


def host_predictions(path: Path, inputs: Path) -> np.ndarray:
    run_model = pytest.importorskip("edgekd.convert.inference").run_model
    return run_model(path, np.load(inputs)["inputs"]).argmax(axis=1)


@pytest.mark.parametrize("name", ["tiny_int8.tflite", "tiny_int8.onnx"])
def test_deploy_and_measure_over_ssh(python_sshd, test_inputs, name):
    path = FIXTURES / name
    runtime = path.suffix[1:]
    with open_session(python_sshd.board) as session:
        environment = provision(session, runtime)
        assert environment.site is None
        folder = deploy_files(session, {name: path, test_inputs.name: test_inputs}, "run-1")
        heard = []
        result = measure(
            session,
            environment,
            board_model(folder, path),
            short_plan(runtime),
            f"{folder}/{test_inputs.name}",
            on_progress=heard.append,
        )
    assert Measurement.model_validate_json(result.model_dump_json()) == result
    assert result.board.startswith(python_sshd.board)
    assert heard
    assert set(result.sample_processes) == {0, 1}
    assert len(result.samples_ms) == len(result.sample_times_s) == len(result.sample_processes)
    assert min(result.samples_ms) > 0
    assert list(result.sample_times_s) == sorted(result.sample_times_s)
    assert result.facts["method"]["timed_seconds"] >= 0.4
    assert result.runs >= len(result.samples_ms)
    assert 0 < result.peak_memory_bytes < result.peak_rss_bytes
    assert result.provider == {"tflite": "XNNPACK", "onnx": "CPUExecutionProvider"}[runtime]
    assert len(result.states) >= 4
    labels = np.load(test_inputs)["labels"]
    assert result.correct == tuple(bool(right) for right in host_predictions(path, test_inputs) == labels)
    assert result.accuracy == sum(result.correct) / 300


def test_local_board_with_random_inputs(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))
    path = FIXTURES / "tiny_int8.tflite"
    with open_session("local") as session:
        environment = provision(session, "tflite")
        folder = deploy_files(session, {path.name: path}, "r")
        result = measure(session, environment, board_model(folder, path), short_plan("tflite"))
    assert result.accuracy is None
    assert result.correct is None
    assert result.facts["method"]["inputs_from"] == "random"
    assert result.matches_profile is None


def test_measuring_goes_on_while_undecided_until_the_cap(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))
    path = FIXTURES / "tiny_int8.onnx"
    asked = []

    def undecided(groups):
        asked.append(len(groups))
        return len(groups) < 4

    with open_session("local") as session:
        environment = provision(session, "onnx")
        folder = deploy_files(session, {path.name: path}, "r")
        model = board_model(folder, path)
        result = measure(session, environment, model, short_plan("onnx"), undecided=undecided)
        assert set(result.sample_processes) == {0, 1, 2, 3}
        assert asked == [2, 3, 4]
        plan = short_plan("onnx", processes=1, min_seconds=0.2, max_seconds=0.3)
        capped = measure(session, environment, model, plan, undecided=lambda groups: True)
    assert 0.3 <= capped.facts["method"]["timed_seconds"] < 2.0


def test_a_second_deploy_sends_nothing(sshd, test_inputs):
    path = FIXTURES / "tiny_int8.tflite"
    from edgekd.board.connection.transfer import put_files

    with open_session(sshd.board) as session:
        first = put_files(session, f"{session.home}/runs/x", {path.name: path, test_inputs.name: test_inputs})
        second = put_files(session, f"{session.home}/runs/x", {path.name: path, test_inputs.name: test_inputs})
    assert set(first.sent) == {path.name, test_inputs.name}
    assert (second.sent, second.sent_bytes) == ((), 0)


def test_a_tampered_model_is_refused_by_the_agent(python_sshd):
    path = FIXTURES / "tiny_int8.tflite"
    with open_session(python_sshd.board) as session:
        environment = provision(session, "tflite")
        folder = deploy_files(session, {path.name: path}, "r")
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        Path(folder, path.name).write_bytes(data)
        with pytest.raises(BuildError, match="sha256"):
            measure(session, environment, board_model(folder, path), short_plan("tflite"))


def test_inputs_that_do_not_fit_and_files_that_are_no_models(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))
    path = FIXTURES / "tiny_int8.tflite"
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, inputs=np.zeros((2, 5, 1, 16), np.float32))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with open_session("local") as session:
        folder = deploy_files(session, {path.name: path, wrong.name: wrong, broken.name: broken}, "r")
        with pytest.raises(ConfigurationError, match="NCHW"):
            environment = provision(session, "tflite")
            measure(session, environment, board_model(folder, path), short_plan("tflite"), f"{folder}/wrong.npz")
        with pytest.raises(BuildError, match="does not load"):
            environment = provision(session, "onnx")
            measure(session, environment, board_model(folder, broken), short_plan("onnx"))


def test_a_dropped_connection_leaves_no_agent(python_sshd: SshServer):
    dropped = threading.Event()

    def drop(message: str) -> None:
        if "runs" in message and not dropped.is_set():
            dropped.set()
            for pid in python_sshd.connections():
                subprocess.run(["pkill", "-KILL", "-P", str(pid)], check=False)
                os.kill(pid, signal.SIGKILL)

    began = time.monotonic()
    with pytest.raises(BoardError, match="connection was lost"):
        measure_long(python_sshd.board, drop)
    assert time.monotonic() - began < 30
    assert wait_until(lambda: not processes_naming(str(python_sshd.home)))


def interrupt(arguments: list[str], ready, environment: dict[str, str]) -> tuple[int, str]:
    """Run interrupted.py in a process of its own and send it SIGINT once `ready` holds."""
    process = subprocess.Popen(
        [sys.executable, str(INTERRUPTED), *arguments],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert wait_until(ready, 60.0)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, stderr


@pytest.mark.parametrize("kind", ["ssh", "local"])
def test_ctrl_c_while_measuring_leaves_no_agent(make_sshd, tmp_path, kind):
    server = make_sshd(PYTHON_HERE)
    board = server.board if kind == "ssh" else "local"
    environment = {} if kind == "ssh" else {"EDGEKD_BOARD_HOME": str(server.home / ".edgekd")}
    agent = f"{server.home}/.edgekd/agent/agent-"
    arguments = ["measure", board]
    code, stderr = interrupt(arguments, lambda: len(processes_naming(agent)) > 0, environment)
    assert code != 0
    assert "KeyboardInterrupt" in stderr
    assert wait_until(lambda: not processes_naming(agent))


def test_ctrl_c_while_sending_leaves_no_half_file(sshd, tmp_path):
    big = tmp_path / "big.bin"
    with big.open("wb") as file:
        file.truncate(250 * 2**20)
    home = sshd.home / ".edgekd"
    code, stderr = interrupt(["send", sshd.board, str(big)], lambda: any(home.rglob("big.bin")), {})
    assert code != 0
    assert "KeyboardInterrupt" in stderr
    assert wait_until(lambda: not processes_naming(str(home)))
    assert wait_until(lambda: not [path for path in home.rglob("*") if path.is_file() or ".incoming" in path.name])


@pytest.mark.slow
def test_a_frozen_server_is_noticed(python_sshd: SshServer):
    frozen = []

    def freeze(message: str) -> None:
        if "runs" in message and not frozen:
            for connection in python_sshd.connections():
                for pid in (connection, *children(connection)):
                    if "sshd" in Path(f"/proc/{pid}/cmdline").read_text():
                        os.kill(pid, signal.SIGSTOP)
                        frozen.append(pid)

    began = time.monotonic()
    try:
        with pytest.raises(BoardError, match="stopped answering"):
            measure_long(python_sshd.board, freeze)
        assert time.monotonic() - began < 40
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not processes_naming(str(python_sshd.home)))
