"""Sending a runtime to a board that lacks it: real wheels, resolved by pip on this side."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from interrupted import FIXTURES, board_model, short_plan

from edgekd.board.connection.open import open_session
from edgekd.board.measuring.measure import measure
from edgekd.board.provisioning import bundle as bundle_module
from edgekd.board.provisioning.bundle import WheelTarget, cached_bundle
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import provision
from edgekd.errors import BoardError

pytestmark = pytest.mark.slow


def bare_environment(python: str, where: Path) -> Path:
    """A directory with a python3 that has no packages."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(where)], check=True)
    return where / "bin"


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    return bare_environment(sys.executable, tmp_path_factory.mktemp("bare"))


def oldest_python() -> str | None:
    """A real Python 3.9, the oldest that the agent promises to run on."""
    found = shutil.which("python3.9")
    usable = found and not subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode
    return found if usable else None


@pytest.fixture
def wheel_cache(tmp_path_factory, monkeypatch):
    """One cache of bundles for all tests of this session: what is downloaded is downloaded once."""
    where = tmp_path_factory.getbasetemp() / "wheel-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(where))
    return where


@pytest.mark.parametrize(("runtime", "name"), [("tflite", "tiny_int8.tflite"), ("onnx", "tiny_int8.onnx")])
def test_a_board_without_the_runtime_is_sent_it_once(make_sshd, bare_python, wheel_cache, runtime, name):
    server = make_sshd({"PATH": f"{bare_python}:/usr/bin:/bin"})
    path = FIXTURES / name
    with open_session(server.board) as session:
        heard = []
        environment = provision(session, runtime, heard.append)
        assert any("sending" in message for message in heard)
        assert environment.python == f"{bare_python}/python3"
        assert environment.site is not None
        assert environment.site.startswith(f"{server.home}/.edgekd/bundles/")
        heard.clear()
        assert provision(session, runtime, heard.append) == environment
        assert not any("sending" in message for message in heard)
        folder = deploy_files(session, {name: path}, "r")
        result = measure(session, environment, board_model(folder, path), short_plan(runtime))
        assert result.runtime_version == environment.runtime_version
        left = {path.name for path in Path(server.home, ".edgekd/bundles").iterdir()}
        assert left == {Path(environment.site).name, f"current-{runtime}"}


def test_a_bundle_that_cannot_be_imported_is_removed(make_sshd, bare_python, wheel_cache, tmp_path, monkeypatch):
    server = make_sshd({"PATH": f"{bare_python}:/usr/bin:/bin"})
    site = tmp_path / "site"
    (site / "numpy").mkdir(parents=True)
    (site / "numpy" / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")

    def broken(package, target, where):
        shutil.copytree(site, where)

    monkeypatch.setattr(bundle_module, "_install", broken)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with open_session(server.board) as session, pytest.raises(BoardError, match="SIGILL: the wheel uses instructions"):
        provision(session, "tflite")
    assert list(Path(server.home, ".edgekd/bundles").iterdir()) == []


def test_wheels_of_an_aarch64_board_are_resolved_here(wheel_cache):
    bundle = cached_bundle("tflite", WheelTarget("aarch64", (2, 31), (3, 11)))
    listing = subprocess.run(["tar", "-tf", str(bundle.path)], capture_output=True, text=True, check=True).stdout
    assert "aarch64" in listing
    assert "x86_64" not in listing
    assert cached_bundle("tflite", WheelTarget("aarch64", (2, 31), (3, 11))) == bundle


@pytest.mark.parametrize(("glibc", "python"), [((2, 34), (3, 11)), ((2, 36), (3, 11)), ((2, 31), (3, 9))])
def test_wheels_of_a_32_bit_userland_are_resolved_from_the_real_index(wheel_cache, glibc, python):
    try:
        bundle = cached_bundle("tflite", WheelTarget("armv7l", glibc, python))
    except BoardError as error:
        if "no wheels" in str(error) and not reaches_an_index():
            pytest.skip("no package index can be reached from here")
        raise
    listing = subprocess.run(["tar", "-tf", str(bundle.path)], capture_output=True, text=True, check=True).stdout
    # No wheel of numpy exists for it: the board's own package serves.
    assert "tflite_runtime/interpreter.py" in listing
    assert "numpy/" not in listing
    (library,) = [name for name in listing.splitlines() if name.endswith(".so")]
    binary = subprocess.run(["tar", "-xOf", str(bundle.path), library], capture_output=True, check=True).stdout
    # ELF: 32 bits, little-endian, machine 40 (ARM).
    assert (binary[:6], int.from_bytes(binary[18:20], "little")) == (b"\x7fELF\x01\x01", 40)


def reaches_an_index():
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", "/dev/null/no", "packaging"]
    said = subprocess.run([*command, "--timeout", "10"], capture_output=True, text=True, check=False).stderr
    return "No matching distribution" not in said and "connection" not in said.lower()


def test_no_wheel_for_such_a_board(wheel_cache):
    with pytest.raises(BoardError, match=r"no wheels of ai-edge-litert.*Python 3\.9 on aarch64 with glibc 2\.17"):
        cached_bundle("tflite", WheelTarget("aarch64", (2, 17), (3, 9)))


@pytest.mark.parametrize(("runtime", "name"), [("tflite", "tiny_int8.tflite"), ("onnx", "tiny_int8.onnx")])
def test_the_agent_runs_on_python_3_9(tmp_path, wheel_cache, monkeypatch, runtime, name):
    python = oldest_python()
    if python is None:
        pytest.skip("no python3.9 on this machine")
    path = FIXTURES / name
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))
    with open_session("local") as session:
        monkeypatch.setattr(session, "preferred_python", str(bare_environment(python, tmp_path / "bare") / "python3"))
        environment = provision(session, runtime)
        assert environment.site is not None
        folder = deploy_files(session, {name: path}, "r")
        result = measure(session, environment, board_model(folder, path), short_plan(runtime))
    assert result.facts["before"]["python"].startswith("3.9.")
    assert result.samples_ms
