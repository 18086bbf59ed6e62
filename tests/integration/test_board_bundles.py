"""Bundles on a real server: resumed, rolled back, kept few, and cleaned away. The wheels are stand-ins."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ssh_server import SshServer, wait_until

from edgekd.board.connection.open import open_session
from edgekd.board.connection.retry import reconnecting
from edgekd.board.connection.transfer import put_files
from edgekd.board.lock import BoardLock
from edgekd.board.provisioning import bundle as bundle_module
from edgekd.board.provisioning.bundle import bundle_cache
from edgekd.board.provisioning.bundle_store import OLD_BUNDLES_KEPT
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import provision
from edgekd.board.provisioning.storage import board_storage, clean
from edgekd.errors import BoardError

MODEL = Path(__file__).parent.parent / "fixtures" / "tiny_int8.tflite"


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    where = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(where)], check=True)
    return where / "bin"


@pytest.fixture
def server(make_sshd, bare_python, tmp_path, monkeypatch) -> SshServer:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return make_sshd({"PATH": f"{bare_python}:/usr/bin:/bin"})


@pytest.fixture
def runtime(monkeypatch):
    """Makes the next bundle: a stand-in runtime of a version, which does `code` when it is imported."""

    def make(version: str, code: str = "", padding_bytes: int = 1000) -> None:
        def install(package, target, site: Path) -> None:
            (site / "numpy").mkdir(parents=True)
            (site / "numpy" / "__init__.py").write_text("")
            (site / "numpy" / "padding.bin").write_bytes(os.urandom(padding_bytes))
            (site / "ai_edge_litert").mkdir()
            (site / "ai_edge_litert" / "__init__.py").write_text("")
            (site / "ai_edge_litert" / "interpreter.py").write_text(f"__version__ = {version!r}\n{code}\n")

        monkeypatch.setattr(bundle_module, "_install", install)
        for made in bundle_cache().glob("*.tar.gz"):
            made.unlink()

    return make


def bundles(server: SshServer) -> set[str]:
    return {path.name for path in Path(server.home, ".edgekd/bundles").iterdir()}


@pytest.mark.parametrize("number", ["SIGILL", "SIGSEGV"])
def test_a_bundle_that_crashes_rolls_back_to_the_one_that_worked(server, runtime, number):
    crash = f"import os, signal\nos.kill(os.getpid(), signal.{number})"
    with open_session(server.board) as session:
        runtime("9.1", crash)
        with pytest.raises(BoardError, match=f"cannot be imported: it was killed by {number}"):
            provision(session, "tflite")
        assert bundles(server) == set()
        runtime("9.2")
        good = provision(session, "tflite")
        assert (good.runtime_version, good.note) == ("9.2", "")
        runtime("9.3", crash)
        rolled_back = provision(session, "tflite")
        assert rolled_back == good
        assert number in rolled_back.note
        assert good.site is not None
        assert bundles(server) == {Path(good.site).name, "current-tflite"}


def test_few_old_bundles_are_kept(server, runtime):
    with open_session(server.board) as session:
        sites = []
        for version in range(5):
            runtime(f"9.{version}")
            environment = provision(session, "tflite")
            assert environment.site is not None
            sites.append(Path(environment.site).name)
            # Which was used last is told by time stamps of a second.
            for age, name in enumerate(reversed(sites)):
                if (path := Path(server.home, ".edgekd/bundles", name)).exists():
                    os.utime(path, (10**9 - age, 10**9 - age))
        assert bundles(server) == {*sites[-1 - OLD_BUNDLES_KEPT :], "current-tflite"}
        assert Path(server.home, ".edgekd/bundles/current-tflite").readlink() == Path(sites[-1])


def test_a_broken_transfer_goes_on_where_it_broke(server, runtime):
    runtime("9.9", padding_bytes=60 * 2**20)
    heard: list[str] = []
    dropped: list[int] = []

    def drop_once() -> None:
        partial = list(Path(server.home, ".edgekd/bundles").glob(".partial-*"))
        if partial and partial[0].stat().st_size > 2**20 and not dropped:
            for pid in server.connections():
                dropped.append(pid)
                subprocess.run(["pkill", "-KILL", "-P", str(pid)], check=False)
                os.kill(pid, signal.SIGKILL)

    watching = threading.Thread(target=lambda: wait_until(lambda: drop_once() or bool(dropped)))
    watching.start()
    with open_session(server.board) as session, BoardLock(session, "test") as lock:
        environment = reconnecting(session, lock, lambda: provision(session, "tflite", heard.append), heard.append)
    watching.join()
    assert dropped
    assert environment.runtime_version == "9.9"
    assert any("arrived earlier: going on from there" in message for message in heard), heard
    assert environment.site is not None
    assert bundles(server) == {Path(environment.site).name, "current-tflite"}


def test_what_arrived_damaged_is_thrown_away(server, runtime):
    runtime("9.9", padding_bytes=2**20)
    with open_session(server.board) as session:
        made = bundle_module.cached_bundle("tflite", bundle_module.WheelTarget("x86_64", (2, 17), (3, 11)))
        partial = Path(server.home, ".edgekd/bundles", f".partial-{made.sha256}")
        partial.parent.mkdir(parents=True)
        partial.write_bytes(os.urandom(1000))
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        if python != "3.11":
            pytest.skip("the stand-in bundle is for Python 3.11")
        with pytest.raises(BoardError, match="arrived damaged"):
            provision(session, "tflite")
        assert not partial.exists()
        assert provision(session, "tflite").runtime_version == "9.9"


def test_clean_removes_all_that_is_ours_and_nothing_else(server, runtime):
    runtime("9.9")
    home = Path(server.home, ".edgekd")
    with open_session(server.board) as session:
        provision(session, "tflite")
        deploy_files(session, {"a/model.tflite": MODEL, "other.tflite": MODEL}, "run 1")
        put_files(session, f"{session.home}/agent", {f"agent-{'0' * 16}.pyz": MODEL})
        (home / "bundles" / ".partial-").write_text("not ours: no sum in its name")
        (home / "runs/run 1/notes.txt").write_text("mine")
        # A listing that has been tampered with must not lead outside.
        outside = Path(server.home, "precious")
        outside.write_text("precious")
        with (home / "runs/run 1/.edgekd-files").open("a") as listing:
            listing.write(f"{'0' * 64}  ../../../precious\n{'0' * 64}  {outside}\n")
        before = board_storage(session)
        assert {entry.kind for entry in before.stored} == {"bundle", "agent", "run"}
        assert [entry.in_use for entry in before.stored if entry.kind == "bundle"] == [True]
        removed, left = clean(session)
        assert removed == before
    assert left == ["bundles", "runs"]
    assert outside.read_text() == "precious"
    files = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert files == {"bundles/.partial-", "runs/run 1/notes.txt"}
    (home / "bundles" / ".partial-").unlink()
    (home / "runs/run 1/notes.txt").unlink()
    with open_session(server.board) as session:
        deploy_files(session, {"model.tflite": MODEL}, "run 2")
        (home / "runs/run 1").rmdir()
        assert clean(session)[1] == []
    assert not home.exists()
    assert outside.exists()


def test_clean_of_a_board_that_has_nothing(server):
    with open_session(server.board) as session:
        removed, left = clean(session)
    assert (removed.stored, left) == ((), [])
    assert list(server.home.iterdir()) == []


def test_a_full_disk_stops_a_bundle_and_leaves_the_old_one(make_sshd, bare_python, runtime, tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = make_sshd({"PATH": f"{bare_python}:/usr/bin:/bin", "HOME": str(small)})
    try:
        with open_session(server.board) as session:
            runtime("9.1")
            good = provision(session, "tflite")
            runtime("9.2", padding_bytes=16 * 2**20)
            with pytest.raises(BoardError, match="No space left on device"):
                provision(session, "tflite")
            # Where df lies, the disk fills up on the way.
            monkeypatch.setattr("edgekd.board.connection.transfer.parse_df", lambda text: None)
            with pytest.raises(BoardError, match=r"could not be unpacked.*No space left"):
                provision(session, "tflite")
            names = {path.name for path in (small / ".edgekd/bundles").iterdir()}
            assert good.site is not None
            assert names == {Path(good.site).name, "current-tflite"}
            runtime("9.3")
            assert provision(session, "tflite").runtime_version == "9.3"
    finally:
        server.stop()
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.parametrize("model", ["NVIDIA Jetson Orin Nano Developer Kit", "Raspberry Pi 5 Model B Rev 1.0"])
def test_the_onnxruntime_of_a_jetson_is_used_and_never_replaced(server, bare_python, tmp_path, monkeypatch, model):
    """No wheel of a registry has a Jetson's GPU provider, so whatever version is installed there stays in use."""
    site = next((bare_python.parent / "lib").glob("python3*")) / "site-packages"
    tree = tmp_path / "sys/firmware/devicetree/base"
    tree.mkdir(parents=True)
    (tree / "model").write_text(model + "\0")
    monkeypatch.setenv("EDGEKD_SYSFS", str(tmp_path / "sys"))

    def install(package, target, folder: Path) -> None:
        for name, text in (("numpy", ""), ("onnxruntime", "__version__ = '1.99'")):
            (folder / name).mkdir(parents=True)
            (folder / name / "__init__.py").write_text(text)

    monkeypatch.setattr(bundle_module, "_install", install)
    own = [site / name for name in ("numpy", "onnxruntime", "onnxruntime_gpu-1.16.0.dist-info")]
    try:
        for folder in own:
            folder.mkdir()
            (folder / "__init__.py").write_text("")
        (own[2] / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.16.0\n")
        with open_session(server.board) as session:
            environment = provision(session, "onnx")
        if "Jetson" in model:
            assert (environment.site, environment.runtime_version) == (None, "1.16.0")
        else:
            assert environment.site is not None
            assert environment.runtime_version == "1.99"
    finally:
        for folder in own:
            shutil.rmtree(folder)
