"""--pin-clocks sets governor and affinity through a fake sysfs tree, and puts everything back whatever happens."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from interrupted import FIXTURES, board_model, short_plan
from ssh_server import wait_until

from edgekd.board.agent.gpu_memory import nvmap_kib
from edgekd.board.connection.open import open_session
from edgekd.board.measuring.agent_client import read_facts
from edgekd.board.measuring.measure import measure
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import provision
from edgekd.errors import BoardError

MODEL = FIXTURES / "tiny_int8.tflite"
GOVERNORS = {0: "ondemand", 1: "powersave"}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    root = tmp_path / "sys"
    for cpu, governor in GOVERNORS.items():
        folder = root / f"devices/system/cpu/cpu{cpu}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(governor + "\n")
        (folder / "scaling_cur_freq").write_text("1500000\n")
        (folder / "cpuinfo_max_freq").write_text("1800000\n")
    monkeypatch.setenv("EDGEKD_SYSFS", str(root))
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))
    return root


def governors(tree):
    return {
        cpu: (tree / f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor").read_text().strip() for cpu in GOVERNORS
    }


def processes_of(name):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if name.encode() in command:
            found.append((int(path.parent.name), command))
    return found


def measured(plan, say=None):
    with open_session("local") as session:
        environment = provision(session, "tflite")
        folder = deploy_files(session, {MODEL.name: MODEL}, "r")
        return measure(session, environment, board_model(folder, MODEL), plan, on_progress=say)


def test_the_governor_is_set_while_measuring_and_put_back(tree):
    seen = []
    result = measured(short_plan("tflite", pin_clocks=True), lambda message: seen.append(governors(tree)))
    assert {0: "performance", 1: "performance"} in seen
    assert governors(tree) == GOVERNORS
    pinned = result.facts["method"]["pinned"]
    assert pinned["governor"] == "performance"
    assert set(pinned["before"].values()) == set(GOVERNORS.values())
    assert len(pinned["affinity"]) == 1
    assert not list(Path(os.environ["EDGEKD_BOARD_HOME"]).rglob("clocks.json"))
    assert result.facts["before"]["governors"] == result.facts["after"]["governors"]


@pytest.mark.parametrize("whom", ["agent", "agent and guard"])
def test_what_is_killed_leaves_no_governor_behind(tree, whom):
    agent = f"{os.environ['EDGEKD_BOARD_HOME']}/agent/agent-"
    killed = []

    def kill(message):
        if "runs" not in message or killed:
            return
        # The guard first: it would restore as soon as the agent is gone.
        for pid, command in sorted(processes_of(agent), key=lambda found: b"--clock-guard" not in found[1]):
            guard = b"--clock-guard" in command
            if not guard or whom == "agent and guard":
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    with pytest.raises(BoardError):
        measured(short_plan("tflite", pin_clocks=True, min_seconds=60.0, max_seconds=60.0), kill)
    assert killed
    if whom == "agent and guard":
        # Nobody is left to restore: the next run on the board does it from the journal.
        assert governors(tree) == {0: "performance", 1: "performance"}
        with open_session("local") as session:
            read_facts(session, provision(session, "tflite").python)
    assert wait_until(lambda: governors(tree) == GOVERNORS)
    assert wait_until(lambda: not list(Path(os.environ["EDGEKD_BOARD_HOME"]).rglob("clocks.json")))


def test_a_governor_that_cannot_be_set_is_an_error_that_says_what_it_takes(tree):
    path = tree / "devices/system/cpu/cpu1/cpufreq/scaling_governor"
    path.unlink()
    path.mkdir()
    with pytest.raises(BoardError, match="--pin-clocks: .*root"):
        measured(short_plan("tflite", pin_clocks=True))
    assert (tree / "devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip() == "ondemand"


@pytest.mark.slow
def test_a_torn_journal_stops_nothing_and_names_no_other_file(tree, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    measured(short_plan("tflite"))
    (agent_folder,) = {path.parent for path in Path(os.environ["EDGEKD_BOARD_HOME"]).rglob("agent-*.pyz")}
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for text in ("{", "[]", json.dumps({"boot_id": boot_id, "guard": 2**22 + 1, "before": {str(victim): "theirs"}})):
        (agent_folder / "clocks.json").write_text(text)
        measured(short_plan("tflite", pin_clocks=True))
        assert governors(tree) == GOVERNORS
    assert victim.read_text() == "mine"


@pytest.fixture
def jetson(tree, tmp_path, monkeypatch):
    """A Jetson by its device tree, and a stand-in for its jetson_clocks that keeps the state in a file."""
    model = tree / "firmware/devicetree/base/model"
    model.parent.mkdir(parents=True)
    model.write_text("NVIDIA Jetson Orin Nano Developer Kit\0")
    state, tools = tmp_path / "clocks", tmp_path / "tools"
    state.write_text("free\n")
    tools.mkdir()
    program = tools / "jetson_clocks"
    program.write_text(
        "#!/bin/sh\n"
        f'case $1 in --store) cp "{state}" "$2";; --restore) cp "$2" "{state}";; "") echo locked >"{state}";; '
        "*) exit 1;; esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return state


def test_a_jetsons_clocks_are_locked_and_put_back(tree, jetson):
    seen = []
    result = measured(short_plan("tflite", pin_clocks=True), lambda message: seen.append(jetson.read_text()))
    assert "locked\n" in seen
    assert jetson.read_text() == "free\n"
    assert governors(tree) == GOVERNORS
    assert result.facts["method"]["pinned"]["jetson_clocks"]
    assert result.gpu_memory_bytes is not None
    assert result.peak_memory_bytes >= result.gpu_memory_bytes
    assert not list(Path(os.environ["EDGEKD_BOARD_HOME"]).rglob("jetson_clocks.stored"))


def test_a_jetsons_clocks_are_put_back_though_agent_and_guard_were_killed(tree, jetson):
    agent = f"{os.environ['EDGEKD_BOARD_HOME']}/agent/agent-"
    killed = []

    def kill(message):
        if "runs" in message and not killed:
            for pid, _ in sorted(processes_of(agent), key=lambda found: b"--clock-guard" not in found[1]):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    with pytest.raises(BoardError):
        measured(short_plan("tflite", pin_clocks=True, min_seconds=60.0, max_seconds=60.0), kill)
    assert jetson.read_text() == "locked\n"
    with open_session("local") as session:
        read_facts(session, provision(session, "tflite").python)
    assert wait_until(lambda: jetson.read_text() == "free\n")
    assert governors(tree) == GOVERNORS


def test_what_the_gpu_holds_is_the_processs_own_by_nvmap():
    text = (
        "CLIENT                        PROCESS      PID        SIZE\n"
        "user                         trtexec     4242      12345K\n"
        "user                         trtexec     4242          2M\n"
        "user                            Xorg     1111      99999K\n"
        "total                                              114392K\n"
    )
    assert nvmap_kib(text, 4242) == 12345 + 2 * 1024
    assert nvmap_kib(text, 7) == nvmap_kib("", 4242) == 0
