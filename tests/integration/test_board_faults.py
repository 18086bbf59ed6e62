"""Faults on the way to a board and on it: each ends soon, with the right words, and the next deploy just works."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from interrupted import FIXTURES, measure_long
from ssh_server import SshServer, descendants, processes_naming, wait_until

from edgekd.board.connection.open import open_session
from edgekd.board.connection.pump import LinkLostError
from edgekd.board.connection.retry import reconnecting
from edgekd.board.lock import BoardLock
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.errors import BoardError

MODEL = FIXTURES / "tiny_int8.tflite"
PYTHON_HERE = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
FAULT_ENDS_WITHIN_S = 30.0


def deploys(server: SshServer) -> None:
    """A deploy of a small file works, with nothing cleaned up by hand."""
    with open_session(server.board) as session, BoardLock(session, "the next deploy"):
        folder = deploy_files(session, {MODEL.name: MODEL}, "next")
    assert (Path(folder) / MODEL.name).read_bytes() == MODEL.read_bytes()


def edgekd(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from edgekd.cli import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "300", **environment},
    )


@pytest.fixture
def big(tmp_path):
    path = tmp_path / "big.bin"
    with path.open("wb") as file:
        file.truncate(400 * 2**20)
    return path


@pytest.fixture
def linked(make_sshd):
    """A board behind a link of its own, and the command that cuts or mends it."""
    ip = shutil.which("ip") or "/usr/sbin/ip"
    namespace, here, there = f"ekd{os.getpid()}", f"ekh{os.getpid()}", f"ekt{os.getpid()}"
    second = os.getpid() % 250
    commands = [
        [ip, "netns", "add", namespace],
        [ip, "link", "add", here, "type", "veth", "peer", "name", there],
        [ip, "link", "set", there, "netns", namespace],
        [ip, "addr", "add", f"10.213.{second}.1/30", "dev", here],
        [ip, "link", "set", here, "up"],
        [ip, "netns", "exec", namespace, ip, "addr", "add", f"10.213.{second}.2/30", "dev", there],
        [ip, "netns", "exec", namespace, ip, "link", "set", there, "up"],
    ]
    try:
        if os.geteuid() != 0 or not Path(ip).exists():
            pytest.skip("a network link of its own needs root and iproute2")
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"network namespaces do not work here: {done.stderr}")
        server = make_sshd(PYTHON_HERE, address=f"10.213.{second}.2", prefix=(ip, "netns", "exec", namespace))
        yield server, lambda state: subprocess.run([ip, "link", "set", here, state], check=True)
    finally:
        subprocess.run([ip, "link", "del", here], capture_output=True, check=False)
        subprocess.run([ip, "netns", "del", namespace], capture_output=True, check=False)


def when(condition, action) -> threading.Thread:
    def watch():
        if wait_until(condition, 20.0):
            action()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.slow
def test_link_down_in_a_transfer(linked, big):
    server, link = linked
    home = server.home / ".edgekd"
    with open_session(server.board) as session:
        cutting = when(lambda: any(home.rglob("big.bin")), lambda: link("down"))
        began = time.monotonic()
        with pytest.raises(LinkLostError), BoardLock(session, "first") as lock:
            reconnecting(session, lock, lambda: deploy_files(session, {big.name: big}, "r"), lambda text: None)
        assert time.monotonic() - began < FAULT_ENDS_WITHIN_S
        cutting.join()
    link("up")
    deploys(server)
    assert wait_until(lambda: not list(home.rglob(".incoming*")))


@pytest.mark.slow
def test_a_link_that_comes_back_is_used_again(linked, big):
    server, link = linked
    home = server.home / ".edgekd"

    def flap():
        link("down")
        time.sleep(14)
        link("up")

    heard = []
    with open_session(server.board) as session, BoardLock(session, "first") as lock:
        cutting = when(lambda: any(home.rglob("big.bin")), flap)
        folder = reconnecting(session, lock, lambda: deploy_files(session, {big.name: big}, "r"), heard.append)
        cutting.join()
    assert (Path(folder) / "big.bin").stat().st_size == big.stat().st_size
    assert heard == ["the connection was lost: connecting again"]
    assert wait_until(lambda: not list(home.rglob(".incoming*")))


@pytest.mark.slow
def test_link_down_in_a_measurement(linked):
    server, link = linked
    cut = []

    def cut_once(message: str) -> None:
        if "runs" in message and not cut:
            cut.append(time.monotonic())
            link("down")

    with pytest.raises(BoardError, match=r"stopped answering|connection was lost"):
        measure_long(server.board, cut_once)
    assert time.monotonic() - cut[0] < FAULT_ENDS_WITHIN_S
    link("up")
    # The server has not noticed: the agent still runs there, and must not disturb whoever measures next.
    with open_session(server.board) as session, BoardLock(session, "next"):
        pass
    deploys(server)


def test_a_reboot(make_sshd, big):
    server = make_sshd(PYTHON_HERE)
    home = server.home / ".edgekd"
    agent = f"{home}/agent/agent-"

    def reboot(message: str) -> None:
        if "runs" in message and server.process is not None:
            everything = (*descendants(server.process.pid), server.process.pid)
            for pid in everything:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            server.process.wait()
            server.process = None

    began = time.monotonic()
    with (
        pytest.raises(LinkLostError, match=r"connection was lost|no command can be started"),
        open_session(server.board) as session,
        BoardLock(session, "first"),
    ):
        measure_long(server.board, reboot)
    assert time.monotonic() - began < FAULT_ENDS_WITHIN_S
    assert wait_until(lambda: not processes_naming(agent))
    with pytest.raises(BoardError, match="cannot be reached"):
        open_session(server.board)
    server.start()
    deploys(server)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ssh", "local"])
def test_a_held_lock_names_its_owner_and_age(make_sshd, monkeypatch, kind):
    server = make_sshd(PYTHON_HERE)
    if kind == "local":
        monkeypatch.setenv("EDGEKD_BOARD_HOME", str(server.home / ".edgekd"))
    board = server.board if kind == "ssh" else "local"
    with open_session(board) as session, BoardLock(session, "edgekd deploy"):
        second = edgekd("measure", str(MODEL), "--board", board, "--plan", "quick")
        _, stderr = second.communicate(timeout=60)
        assert second.returncode == 4
        assert f"process {os.getpid()} (edgekd deploy) for" in stderr
        cleaning = edgekd("board", "clean", board)
        assert "is locked by" in cleaning.communicate(timeout=60)[1]
        assert cleaning.returncode == 4
        checking = edgekd("board", "check", board, "--json")
        found = json.loads(checking.communicate(timeout=120)[0])
        assert checking.returncode == 4
        assert [item["name"] for item in found["items"] if item["status"] == "fail"] == ["lock"]
    assert not server.lock.exists()
    if kind == "ssh":
        deploys(server)


@pytest.mark.parametrize("left_behind", ["killed", "other boot"])
def test_a_lock_whose_owner_is_gone_is_broken(make_sshd, left_behind):
    server = make_sshd(PYTHON_HERE)
    lock = server.lock
    with open_session(server.board) as session, BoardLock(session, "first"):
        token, pid, boot, since, owner = lock.read_text().split(" ", 4)
        os.kill(int(pid), signal.SIGKILL)
    assert lock.exists()
    if left_behind == "other boot":
        lock.write_text(f"{token} {os.getpid()} {boot[::-1]} {since} {owner}")
    deploys(server)
    assert not lock.exists()


def foreign_lock(server, token, process):
    lock = server.home / "edgekd-board.4242.lock"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    lock.write_text(f"{token} {process} {boot} {int(time.time()) - 90} ann@laptop process 7 (edgekd deploy)\n")
    Path(f"{lock}.beat").write_text(token)
    os.utime(lock, (time.time() - 90, time.time() - 90))
    return lock


def test_another_login_of_the_board_is_seen_and_its_stale_lock_counts_for_nothing(make_sshd, caplog):
    server = make_sshd(PYTHON_HERE)
    holder = subprocess.Popen(["sh", "-c", "sleep 60; :", "edgekd", "0123456789abcdef"])
    lock = foreign_lock(server, "0123456789abcdef", holder.pid)
    with open_session(server.board) as session:
        try:
            with pytest.raises(BoardError, match="locked by ann@laptop process 7 .edgekd deploy. for 9"):
                BoardLock(session, "second").acquire()
            assert not server.lock.exists()
            # Made after ours, it is its owner who has to yield.
            os.utime(lock, (time.time() + 50, time.time() + 50))
            with BoardLock(session, "the older one"):
                assert server.lock.exists()
        finally:
            holder.kill()
            holder.wait()
        os.utime(f"{lock}.beat", (time.time() - 60, time.time() - 60))
        with BoardLock(session, "after it died"):
            assert server.lock.exists()
    assert lock.exists()
    assert "another login's to remove" in caplog.text


@pytest.mark.slow
def test_two_deploys_at_once_and_ctrl_c(make_sshd):
    server = make_sshd(PYTHON_HERE)
    command = ["measure", str(MODEL), "--board", server.board, "--plan", "quick"]
    agent = f"{server.home}/.edgekd/agent/agent-"
    first = edgekd(*command)
    assert wait_until(lambda: server.lock.exists(), 60)
    second = edgekd(*command)
    assert "is locked by" in second.communicate(timeout=60)[1]
    assert second.returncode == 4
    assert wait_until(lambda: len(processes_naming(agent)) > 0, 60)
    first.send_signal(signal.SIGINT)
    stderr = first.communicate(timeout=30)[1]
    assert first.returncode == 130, stderr
    assert wait_until(lambda: not processes_naming(agent))
    assert not server.lock.exists()
    deploys(server)


@pytest.fixture
def read_only(tmp_path):
    where = tmp_path / "read-only"
    where.mkdir()
    commands = [
        ["mount", "-t", "tmpfs", "tmpfs", str(where)],
        ["mount", "-o", "remount,ro", str(where)],
    ]
    if os.geteuid() != 0 or any(subprocess.run(c, capture_output=True, check=False).returncode for c in commands):
        pytest.skip("a read-only file system needs root")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_read_only_home(make_sshd, read_only):
    server = make_sshd({**PYTHON_HERE, "HOME": str(read_only)})
    process = edgekd("measure", str(MODEL), "--board", server.board, "--plan", "quick")
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 4
    assert "cannot be written" in stderr
    assert "EDGEKD_BOARD_HOME" in stderr
    checking = edgekd("board", "check", server.board, "--json")
    found = json.loads(checking.communicate(timeout=120)[0])
    assert checking.returncode == 4
    assert [item["name"] for item in found["items"] if item["status"] == "fail"] == ["write access"]


def test_max_sessions(make_sshd):
    server = make_sshd(PYTHON_HERE, options=["MaxSessions 1"])
    began = time.monotonic()
    process = edgekd("measure", str(MODEL), "--board", server.board, "--plan", "quick")
    stderr = process.communicate(timeout=120)[1]
    assert time.monotonic() - began < FAULT_ENDS_WITHIN_S
    assert process.returncode == 4
    assert "raise MaxSessions" in stderr
    assert wait_until(lambda: not processes_naming(str(server.home)))
    assert not server.lock.exists()


@pytest.mark.parametrize("shell", ["fish", "tcsh", "zsh", "dash"])
def test_login_shells(make_sshd, shell):
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    server = make_sshd(PYTHON_HERE, options=[f'ForceCommand exec {found} -c "$SSH_ORIGINAL_COMMAND"'])
    deploys(server)
    with open_session(server.board) as session:
        assert session.run(["printf", "%s", "a'b\"c$d\\e!"]).stdout == "a'b\"c$d\\e!"
        assert session.run(["sh", "-c", "kill -SEGV $$"], check=False).signal == signal.SIGSEGV


def test_a_clock_that_is_hours_off(make_sshd, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "date").write_text(
        '#!/bin/sh\nif [ "$1" = -r ]; then echo $(($(/bin/date -r "$2" +%s) + 10800)); else '
        "echo $(($(/bin/date +%s) + 10800)); fi\n"
    )
    (tools / "date").chmod(0o755)
    server = make_sshd({"PATH": f"{tools}:{PYTHON_HERE['PATH']}"})
    with (
        open_session(server.board) as session,
        BoardLock(session, "first"),
        open_session(server.board) as other,
        pytest.raises(BoardError, match=r"for \d s\."),
    ):
        BoardLock(other, "second").acquire()
    checking = edgekd("board", "check", server.board, "--json")
    found = json.loads(checking.communicate(timeout=120)[0])
    clock = next(item for item in found["items"] if item["name"] == "clock")
    assert clock["status"] == "warn"
    assert "ahead of this machine" in clock["found"]
    assert checking.returncode == 0
    deploys(server)


@pytest.fixture
def little_memory():
    """Puts a process and all its children under a memory limit."""
    version_1, version_2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    root, limit = (version_1, "memory.limit_in_bytes") if version_1.is_dir() else (version_2, "memory.max")
    group = root / f"edgekd-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(256 * 2**20))
    except OSError as error:
        pytest.skip(f"a memory limit needs root and a memory cgroup: {error}")
    yield lambda pid: (group / "cgroup.procs").write_text(str(pid))
    assert wait_until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def hungry_model(path: Path) -> Path:
    """An ONNX file that needs a gibibyte while it runs."""
    onnx = pytest.importorskip("onnx")
    helper, numbers = onnx.helper, onnx.TensorProto.FLOAT
    shape = helper.make_tensor("shape", onnx.TensorProto.INT64, [4], [1, 2**14, 2**7, 2**7])
    graph = helper.make_graph(
        [
            helper.make_node("Expand", ["x", "shape"], ["wide"]),
            helper.make_node("Sqrt", ["wide"], ["root"]),
            helper.make_node("ReduceMax", ["root"], ["y"], keepdims=0),
        ],
        "hungry",
        [helper.make_tensor_value_info("x", numbers, [1, 1, 1, 1])],
        [helper.make_tensor_value_info("y", numbers, [])],
        [shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


def test_out_of_memory_is_a_missed_limit(make_sshd, little_memory, tmp_path):
    server = make_sshd(PYTHON_HERE)
    model = hungry_model(tmp_path / "hungry.onnx")
    tree = tmp_path / "sys/firmware/devicetree/base"
    tree.mkdir(parents=True)
    (tree / "model").write_text("Raspberry Pi 4 Model B Rev 1.4\0")
    assert server.process is not None
    little_memory(server.process.pid)
    command = ["measure", str(model), "--board", server.board, "--plan", "quick", "--json"]
    judged = edgekd(*command, "--profile", "rpi4", EDGEKD_SYSFS=str(tmp_path / "sys"))
    stdout, stderr = judged.communicate(timeout=120)
    assert judged.returncode == 1, stderr
    verdicts = {verdict["constraint"]: verdict for verdict in json.loads(stdout)["verdicts"]}
    assert verdicts["peak_memory_mib"]["outcome"] == "missed"
    assert "want of memory" in verdicts["peak_memory_mib"]["reason"]
    assert verdicts["latency_p90_ms"]["outcome"] == "not_measured"
    # Without a profile there is no limit that could be missed.
    unjudged = edgekd(*command)
    stderr = unjudged.communicate(timeout=120)[1]
    assert unjudged.returncode == 4
    assert "want of memory" in stderr
    deploys(server)
    server.stop()
