"""An aarch64 board in QEMU: a bundle deploys without a network, int8 is bit-exact, and nothing of it is judged.

Runs where EDGEKD_TEST_EMULATED=1, as root, with the distribution's qemu-user-static, binfmt-support and mmdebstrap.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from edgekd.board.connection.open import open_session
from edgekd.board.emulation import EmulatedBoard, machine_of, require_tools
from edgekd.board.examination.doctor import check_board
from edgekd.board.measuring.agent_client import Agent
from edgekd.board.measuring.agent_lines import OutputsLine
from edgekd.board.measuring.extra_passes import RawOutputs, compare_outputs, host_outputs
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import provision
from edgekd.board.provisioning.storage import clean
from edgekd.errors import ConfigurationError
from edgekd.load import load_profile

MODEL = Path(__file__).parent.parent / "fixtures" / "tiny_int8.tflite"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def emulated(tmp_path, monkeypatch):
    if os.environ.get("EDGEKD_TEST_EMULATED") != "1":
        pytest.skip("emulating takes minutes: EDGEKD_TEST_EMULATED=1 runs it")
    try:
        require_tools()
    except ConfigurationError as error:
        pytest.skip(str(error))
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with EmulatedBoard(machine_of("rpi4"), fresh=False, say=lambda message: None) as board:
        yield board


def test_a_bundle_deploys_and_int8_is_bit_exact(emulated, tmp_path):
    inputs = tmp_path / "inputs.npz"
    np.savez(inputs, inputs=np.random.default_rng(0).standard_normal((50, 3, 1, 16)).astype(np.float32))
    sha256 = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    lines: list[OutputsLine] = []
    with open_session(emulated.board, identity=emulated.identity, accept_new_host_key=True) as session:
        clean(session)
        routes = session.run(["cat", "/proc/net/route"]).stdout.splitlines()[1:]
        assert [line.split()[1] for line in routes if line.split()[1] == "00000000"] == []
        checked = check_board(session, load_profile("rpi4"), "tflite")
        assert (checked.emulated, checked.deployable, checked.matches_profile) == (True, True, False)
        environment = provision(session, "tflite")
        assert environment.site is not None
        folder = deploy_files(session, {MODEL.name: MODEL, inputs.name: inputs}, "r")
        job = {"runtime": "tflite", "model": f"{folder}/{MODEL.name}", "model_sha256": sha256, "threads": 1}
        Agent(session, environment.python, environment.site).do(
            "accuracy",
            lambda line: lines.append(line) if isinstance(line, OutputsLine) else None,
            timeout_s=300.0,
            **job,
            inputs=f"{folder}/{inputs.name}",
        )
        assert clean(session)[1] == []
    there, here = RawOutputs.of(lines), host_outputs(MODEL, sha256, inputs, "tflite", 1)
    assert there is not None
    assert here is not None
    parity = compare_outputs(there, here)
    assert parity is not None
    assert (parity.bit_exact, parity.inputs, parity.max_abs_lsb) == (True, 50, 0)
