"""Boards that are not as one would like them: full, read-only, chatty, without Python, hostile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from interrupted import FIXTURES, board_model, short_plan

from edgekd.board.connection.open import open_session
from edgekd.board.connection.transfer import LISTING_NAME
from edgekd.board.measuring.agent_client import read_facts
from edgekd.board.measuring.measure import measure
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import provision
from edgekd.board.provisioning.userland import find_python
from edgekd.errors import BoardError, ConfigurationError

MODEL = FIXTURES / "tiny_int8.tflite"
PYTHON_HERE = f"{Path(sys.executable).parent}:/usr/bin:/bin"


def only_tools(directory: Path, *names: str) -> str:
    """A PATH that has nothing but `names`."""
    directory.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found, name
        (directory / name).symlink_to(found)
    return str(directory)


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path):
    names = ("sh", "tar", "sha256sum", "mkdir", "mv", "rm", "cat", "sleep", "find", "env", "id", "dirname")
    return only_tools(tmp_path / "tools", *names)


def hide_system_python(monkeypatch):
    from edgekd.board.provisioning import userland as module

    # The board is this machine, whose /usr/bin cannot be hidden from an absolute path.
    monkeypatch.setattr(module, "PYTHON_NAMES", tuple(n for n in module.PYTHON_NAMES if not n.startswith("/")))


def test_board_without_python(make_sshd, tools, monkeypatch):
    hide_system_python(monkeypatch)
    server = make_sshd({"PATH": tools})
    with open_session(server.board) as session, pytest.raises(BoardError, match="no Python 3.9 or newer there.*apt"):
        provision(session, "tflite")


def test_board_with_an_old_python_only(make_sshd, tools, monkeypatch):
    hide_system_python(monkeypatch)
    script(Path(tools, "python3"), "#!/bin/sh\necho 3 7\n")
    server = make_sshd({"PATH": tools})
    with open_session(server.board) as session, pytest.raises(BoardError, match=r"tools/python3 is 3\.7"):
        provision(session, "tflite")


def test_a_newer_python_beside_an_old_one_is_found(make_sshd, tools, monkeypatch):
    hide_system_python(monkeypatch)
    script(Path(tools, "python3"), "#!/bin/sh\necho 3 7\n")
    Path(tools, "python3.11").symlink_to(sys.executable)
    server = make_sshd({"PATH": tools})
    with open_session(server.board) as session:
        assert find_python(session) == (f"{tools}/python3.11", (3, 11))


@pytest.mark.parametrize("noise", ["echo WELCOME; echo note >&2", "printf 'no newline'; sleep 1"])
def test_a_chatty_or_slow_start_up_file(make_sshd, tmp_path, noise):
    # sshd hands commands to the login shell, which reads no start-up file unless told; BASH_ENV tells bash to.
    start_up = tmp_path / "noise.sh"
    start_up.write_text(noise + "\n")
    shell = Path(os.environ.get("SHELL", "/bin/sh")).name
    if shell != "bash":
        pytest.skip("the login shell of these tests is not bash")
    server = make_sshd({"BASH_ENV": str(start_up), "PATH": PYTHON_HERE})
    with open_session(server.board) as session:
        result = session.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
        assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3)
        assert session.home == f"{server.home}/.edgekd"


def test_a_login_without_a_shell(make_sshd):
    server = make_sshd(options=["ForceCommand echo 'This account is not available'; exit 1"])
    with pytest.raises(BoardError, match="login shell there ended with code 1.*not available"):
        open_session(server.board)


def test_home_that_cannot_be_written(sshd, monkeypatch):
    monkeypatch.setenv("EDGEKD_BOARD_HOME", "/proc/edgekd")
    with open_session(sshd.board) as session, pytest.raises(BoardError, match="cannot be written.*EDGEKD_BOARD_HOME"):
        deploy_files(session, {MODEL.name: MODEL}, "r")


@pytest.fixture
def small_disk(tmp_path):
    where = tmp_path / "small"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(where)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.mark.parametrize("df_works", [True, False])
@pytest.mark.parametrize("kind", ["ssh", "local"])
def test_a_full_disk_leaves_nothing_half_written(sshd, small_disk, tmp_path, monkeypatch, kind, df_works):
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(small_disk / "home"))
    big = tmp_path / "big.bin"
    big.write_bytes(os.urandom(3 * 2**20))
    if not df_works:
        monkeypatch.setattr("edgekd.board.connection.transfer.parse_df", lambda text: None)
    with open_session(sshd.board if kind == "ssh" else "local") as session:
        deploy_files(session, {MODEL.name: MODEL}, "r")
        with pytest.raises(BoardError, match="3.0 MiB are needed" if df_works else "could not be unpacked"):
            deploy_files(session, {MODEL.name: MODEL, big.name: big}, "r")
        left = [path for path in small_disk.rglob("*") if path.is_file() or ".incoming" in path.name]
        assert set(left) == {small_disk / "home/runs/r" / name for name in (MODEL.name, LISTING_NAME)}
        assert deploy_files(session, {MODEL.name: MODEL}, "r2") == f"{small_disk}/home/runs/r2"


def test_names_that_would_leave_the_directory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))
    with open_session("local") as session:
        for name in (
            "../x",
            "a/../../x",
            "/etc/x",
            "",
            "a//b",
            ".incoming-1",
            "-n",
            "a\nb",
            "a\n",
            "a ",
            "a\\b",
            "SHA256SUMS",
        ):
            with pytest.raises(ConfigurationError, match="name of a file on a board"):
                deploy_files(session, {name: MODEL}, "r")
        with pytest.raises(ConfigurationError):
            deploy_files(session, {"a": MODEL}, "../../r")
        folder = deploy_files(session, {"mein Modell (1) ü.tflite": MODEL}, "run 1")
    assert Path(folder, "mein Modell (1) ü.tflite").read_bytes() == MODEL.read_bytes()
    assert not (tmp_path / "home").joinpath("x").exists()


def test_what_an_interrupted_transfer_left_goes_at_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))
    ended = subprocess.Popen(["true"])
    ended.wait()
    root = tmp_path / "home/runs/r"
    stale, in_use = root / f".incoming-{ended.pid}-aa", root / f".incoming-{os.getpid()}-bb"
    for directory in (stale, in_use):
        directory.mkdir(parents=True)
        (directory / "half").write_text("half")
    with open_session("local") as session:
        deploy_files(session, {MODEL.name: MODEL}, "r")
    assert not stale.exists()
    assert in_use.exists()


@pytest.mark.parametrize(
    "said",
    [
        r"\033]0;owned\007\033[31mred",
        '{"kind": "samples", "start_ns": [1], "duration_ns": [NaN]}',
        '{"kind": "facts", "surprise": 1}',
        "[" * 200_000,
    ],
)
def test_a_hostile_board_is_refused_and_never_printed_raw(tmp_path, monkeypatch, said):
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))
    script(tmp_path / "python3", f"#!/bin/sh\nprintf '%b\\n' '{said}'\nsleep 5\n")
    with open_session("local") as session, pytest.raises(BoardError, match="not one of its records") as caught:
        read_facts(session, str(tmp_path / "python3"))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_an_endless_line_is_refused(make_sshd, tools):
    script(Path(tools, "python3"), "#!/bin/sh\nexec cat /dev/zero\n")
    server = make_sshd({"PATH": tools})
    with open_session(server.board) as session, pytest.raises(BoardError, match="line of more than"):
        read_facts(session, f"{tools}/python3")


@pytest.mark.parametrize(
    ("number", "expected"), [("KILL", "SIGKILL.*memory"), ("ILL", "SIGILL.*instructions"), ("SEGV", "SIGSEGV.*crashed")]
)
def test_an_agent_that_is_killed_is_told_from_a_lost_link(make_sshd, tools, number, expected):
    script(Path(tools, "python3"), f"#!/bin/sh\nkill -{number} $$\n")
    server = make_sshd({"PATH": tools})
    with open_session(server.board) as session, pytest.raises(BoardError, match=f"killed by {expected}"):
        read_facts(session, f"{tools}/python3")


def test_a_fake_sysfs_is_measured(tmp_path, monkeypatch):
    tree = tmp_path / "sys"
    files = {
        "firmware/devicetree/base/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "class/thermal/thermal_zone0/temp": "48312\n",
        "class/hwmon/hwmon3/name": "ina3221\n",
        "class/hwmon/hwmon3/in1_label": "VDD_IN\n",
        "class/hwmon/hwmon3/curr1_input": "950\n",
        "class/powercap/intel-rapl:0/name": "package-0\n",
        "class/powercap/intel-rapl:0/energy_uj": "123456\n",
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
        "devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    }
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    script(bin_directory / "vcgencmd", "#!/bin/sh\necho throttled=0x50005\n")
    monkeypatch.setenv("PATH", f"{bin_directory}:{os.environ['PATH']}")
    monkeypatch.setenv("EDGEKD_SYSFS", str(tree))
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))
    with open_session("local") as session:
        environment = provision(session, "tflite")
        folder = deploy_files(session, {MODEL.name: MODEL}, "r")
        result = measure(session, environment, board_model(folder, MODEL), short_plan("tflite"))
    assert result.board == "local (Raspberry Pi 4 Model B Rev 1.4)"
    assert result.throttled is True
    assert {(state.temperature_c, state.clock_mhz) for state in result.states} == {(48.312, 1500.0)}
    assert result.facts["before"]["governors"] == {"cpu0": "performance"}
    assert result.facts["before"]["power_sensors"] == ["ina3221 VDD_IN", "rapl package-0"]
    assert result.power is None
    assert any("throttled" in note for note in result.notes)
    assert any("power was not measured" in note and "VDD_IN" in note for note in result.notes)
    assert result.facts["method"]["sysfs_root"] == str(tree)
