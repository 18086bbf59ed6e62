"""--container: everything runs inside one container of the board's own engine, and none is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from interrupted import FIXTURES, board_model, short_plan
from ssh_server import wait_until

from edgekd.board.connection.open import open_session
from edgekd.board.container import LABEL, within
from edgekd.board.lock import BoardLock
from edgekd.board.measuring.measure import measure
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import provision
from edgekd.errors import BoardError, ConfigurationError

STAND_IN = Path(__file__).with_name("stand_in_docker.py")
MODEL = FIXTURES / "tiny_int8.tflite"
IMAGE = "registry.example/robot:1.2"


@pytest.fixture
def tools(tmp_path):
    """All programs of this machine but the engines, so that a test decides which are there."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for program in (*Path("/usr/bin").iterdir(), *Path("/bin").iterdir()):
        if program.name not in ("docker", "podman") and not (folder / program.name).exists():
            (folder / program.name).symlink_to(program)
    (folder / "python3").unlink(missing_ok=True)
    (folder / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "python3").chmod(0o755)
    return folder


@pytest.fixture
def state(tmp_path):
    return tmp_path / "containers"


@pytest.fixture
def board(make_sshd, tools, state):
    def start(engine="docker", **variables):
        if engine:
            (tools / engine).write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
            (tools / engine).chmod(0o755)
        return make_sshd({"PATH": str(tools), "STAND_IN_STATE": str(state), **variables})

    return start


def containers(state):
    return [path for path in state.glob("edgekd-*") if path.is_dir()]


def measured(board, image=IMAGE):
    with (
        open_session(board) as session,
        BoardLock(session, "test"),
        within(session, image, lambda message: None) as place,
    ):
        environment = provision(place, "tflite")
        folder = deploy_files(place, {MODEL.name: MODEL}, "r")
        return measure(place, environment, board_model(folder, MODEL), short_plan("tflite", container=image))


def test_all_of_it_runs_inside_and_nothing_is_left(board, state):
    server = board()
    result = measured(server.board)
    assert result.runs >= 64
    assert IMAGE in result.board
    assert any(IMAGE in note for note in result.notes)
    log = (state / "log.txt").read_text()
    assert "agent-" in log
    assert "sha256sum" in log
    assert not containers(state)
    assert not server.lock.exists()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"STAND_IN_IMAGE": "no rights"}, "usermod -aG docker"),
        ({"STAND_IN_IMAGE": "no daemon"}, "systemctl start docker"),
        ({"STAND_IN_IMAGE": "absent"}, "docker pull"),
        ({"STAND_IN_RUN": "fails"}, "OCI runtime create failed"),
    ],
)
def test_what_is_missing_is_told_with_its_cure(board, state, variables, words):
    with pytest.raises(BoardError, match=words):
        measured(board(**variables).board)
    assert not containers(state)


def test_no_engine_and_no_image_name(board):
    server = board(engine="")
    with pytest.raises(BoardError, match="neither docker nor podman"):
        measured(server.board)
    with pytest.raises(ConfigurationError, match="name of an image"):
        measured(server.board, "--privileged")


def test_a_process_killed_inside_is_told_and_exit_codes_pass(board):
    with open_session(board().board) as session, within(session, IMAGE, lambda message: None) as place:
        assert place.run(["sh", "-c", "exit 37"], check=False).exit_code == 37
        killed = place.run(["sh", "-c", "kill -9 $$"], check=False)
        assert (killed.exit_code, killed.signal) == (None, 9)


@pytest.mark.parametrize("how", ["ctrl-c", "link"])
def test_no_container_outlives_the_host(board, state, how):
    server = board()
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; import test_container as t; "
        "t.short_plan = (lambda plan: lambda *a, **k: plan(*a, **{**k, 'min_seconds': 60.0, 'max_seconds': 60.0}))"
        "(t.short_plan); t.measured(sys.argv[1])"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", code, server.board, str(Path(__file__).parent)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert wait_until(lambda: (state / "log.txt").exists() and "agent-" in (state / "log.txt").read_text(), 60)
        if how == "link":
            for connection in server.connections():
                os.kill(connection, signal.SIGKILL)
        else:
            host.send_signal(signal.SIGINT)
        assert wait_until(lambda: not containers(state), 30)
    finally:
        host.kill()
        host.wait()


def test_one_that_was_left_is_removed_by_the_next_run(board, state):
    server = board()
    left, foreign = state / "edgekd-left", state / "edgekd-foreign"
    for folder, home in ((left, f"{server.home}/.edgekd"), (foreign, "/elsewhere")):
        folder.mkdir(parents=True)
        (folder / "label").write_text(f"{LABEL}={home}")
    with open_session(server.board) as session, within(session, IMAGE, lambda message: None):
        assert not left.exists()
        assert len(containers(state)) == 2
    assert containers(state) == [foreign]


def test_pinned_clocks_are_refused(tmp_path):
    from edgekd.pipeline.boards.measuring import MeasuringOptions, plan_for

    with pytest.raises(ConfigurationError, match="--pin-clocks cannot be had with --container"):
        plan_for("quick", "tflite", 1, MeasuringOptions(pin_clocks=True, container=IMAGE))


@pytest.mark.slow
def test_a_real_podman(tmp_path, monkeypatch):
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    skeleton = tmp_path / "image.tar"
    with tarfile.open(skeleton, "w") as archive:
        for name in ("proc", "sys", "dev", "tmp", "etc", "run", "root", "usr", "var"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name in ("bin", "lib", "lib64"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(entry)
        archive.add("/etc/ld.so.cache", "etc/ld.so.cache")
    image = "localhost/edgekd-test-skeleton"
    if "CONTAINERS_CONF" not in os.environ:
        mounts = {"/usr", *(str(path) for path in (Path(sys.prefix), Path(sys.base_prefix)) if path != Path("/usr"))}
        conf = tmp_path / "containers.conf"
        volumes = ", ".join(f'"{path}:{path}:ro"' for path in sorted(mounts))
        conf.write_text(f"[containers]\nvolumes = [{volumes}]\n")
        monkeypatch.setenv("CONTAINERS_CONF", str(conf))
    subprocess.run(["podman", "import", "-q", str(skeleton), image], capture_output=True, check=False)
    tried = subprocess.run(["podman", "run", "--rm", "--network=none", image, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"podman runs no container here: {tried.stderr.strip()[-200:]}")
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))
    with open_session("local") as session, within(session, image, lambda message: None) as place:
        version = place.run(["sh", "-c", "cat /proc/1/comm; ls /run/edgekd-sys/firmware"]).stdout
        assert place.run(["sh", "-c", "kill -9 $$"], check=False).signal == 9
        place.put(MODEL, f"{place.home}/model")
    assert "sh" in version
    assert (tmp_path / "home/model").read_bytes() == MODEL.read_bytes()
    names = subprocess.run(["podman", "ps", "-a", "--format", "{{.Names}}"], capture_output=True, text=True).stdout
    assert "edgekd-" not in names
