"""--runtime tensorrt through a real OpenSSH server and a stand-in trtexec: never run on a Jetson."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ssh_server import processes_naming, wait_until

from edgekd.board.agent.trtexec import layer_times, output_values, timed_runs
from edgekd.board.agent.wire import AgentError
from edgekd.board.connection.open import open_session
from edgekd.board.measuring.tensorrt import find_trtexec, parse_version

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
STAND_IN = Path(__file__).with_name("stand_in_trtexec.py")


def write_float_model(path: Path) -> Path:
    """Conv, relu, pool and a dense layer in float32: (1, 3, 8, 8) to (1, 4)."""
    helper, generator = onnx.helper, np.random.default_rng(3)
    weights = {
        "w": generator.standard_normal((5, 3, 3, 3)).astype(np.float32),
        "b": generator.standard_normal(5).astype(np.float32),
        "d": generator.standard_normal((4, 5)).astype(np.float32),
        "e": generator.standard_normal(4).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w", "b"], ["c"], "c", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "r"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "p"),
        helper.make_node("Flatten", ["p"], ["f"], "f"),
        helper.make_node("Gemm", ["f", "d", "e"], ["logits"], "logits", transB=1),
    ]
    single = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", single, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("logits", single, (1, 4))],
        [onnx.numpy_helper.from_array(data, name) for name, data in weights.items()],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


@pytest.fixture
def trtexec(tmp_path):
    folder = tmp_path / "tensorrt"
    folder.mkdir()
    program = folder / "trtexec"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def stored(tmp_path):
    generator = np.random.default_rng(5)
    path = tmp_path / "inputs.npz"
    inputs = generator.standard_normal((3, 3, 8, 8)).astype(np.float32)
    np.savez(path, inputs=inputs, labels=generator.integers(0, 4, 3))
    return path


@pytest.fixture
def board(make_sshd, trtexec, tmp_path):
    def start(**variables):
        path = f"{trtexec.parent}:{Path(sys.executable).parent}:/usr/bin:/bin"
        return make_sshd({"PATH": path, "TRT_CALLS": str(tmp_path / "calls.txt"), **variables})

    return start


def measure(model, board, *more, cwd, code=0):
    result = subprocess.run(
        [
            *(sys.executable, "-c", "from edgekd.cli import main; main()", "measure", str(model)),
            *("--board", board, "--runtime", "tensorrt", "--plan", "quick", "--json", *map(str, more)),
        ],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert result.returncode == code, result.stderr[-3000:]
    return json.loads(result.stdout)["measurement"] if code == 0 else result.stderr


@pytest.mark.slow
def test_an_engine_is_built_once_measured_and_compared(board, stored, tmp_path):
    model, server = write_float_model(tmp_path / "m.onnx"), board()
    first = measure(model, server.board, "--scheme", "fp16", "--inputs", stored, cwd=tmp_path)
    assert (first["runtime"], first["runtime_version"]) == ("tensorrt", "10.3.0 b30")
    engine = first["engine"]
    assert engine["built_now"]
    assert engine["flags"] == ["--fp16"]
    assert engine["onnx_sha256"] == first["model_sha256"]
    (plan,) = (server.home / ".edgekd/engines").glob("*.plan")
    assert engine["sha256"] == hashlib.sha256(plan.read_bytes()).hexdigest()
    assert engine["build_seconds"] > 0
    assert all(1.5 < sample < 1.6 for sample in first["samples_ms"])
    assert set(first["sample_processes"]) >= set(range(5))
    assert first["sample_times_s"] == sorted(first["sample_times_s"])
    assert first["host_parity"]["inputs"] == first["accuracy_inputs"] == 3
    assert first["host_parity"]["top1_agreement"] == 1.0
    assert first["host_parity"]["max_abs"] < 1e-4
    assert [layer["name"] for layer in first["per_operator"]] == ["conv + relu", "gemm"]
    assert first["peak_memory_bytes"] == first["peak_rss_bytes"] > 2**20
    assert first["power"] is None
    assert any("whole process" in note for note in first["notes"])
    calls = (tmp_path / "calls.txt").read_text().splitlines()
    assert sum("--onnx=" in call for call in calls) == 1
    assert not list((server.home / ".edgekd/engines").glob(".run-*"))


def build(server, model, cwd, **more):
    """The engine alone, by the library: what the command does first."""
    from edgekd.board.measuring.agent_client import Agent
    from edgekd.board.measuring.tensorrt import EngineRequest, build_engine
    from edgekd.board.provisioning.deploy import deploy_files
    from edgekd.board.provisioning.provision import provision
    from edgekd.store import hash_file

    with open_session(server.board) as session:
        environment = provision(session, "tensorrt")
        folder = deploy_files(session, {model.name: model}, "r")
        agent = Agent(session, environment.python, None)
        request = EngineRequest(more.pop("scheme", "fp16"))
        onnx_file = (f"{folder}/{model.name}", hash_file(model))
        return build_engine(agent, environment.trtexec, request, onnx_file, "a device")


def test_an_engine_that_does_not_load_or_is_not_what_was_built_is_built_anew(board, tmp_path):
    model, server = write_float_model(tmp_path / "m.onnx"), board()
    path, first = build(server, model, tmp_path)
    assert first.built_now
    second = build(server, model, tmp_path)[1]
    assert not second.built_now
    assert (second.sha256, second.build_seconds) == (first.sha256, first.build_seconds)
    plan = Path(path)
    plan.write_bytes(plan.read_bytes() + b"x")
    again = build(server, model, tmp_path)[1]
    assert again.built_now
    assert again.sha256 != first.sha256
    # As after an upgrade that left trtexec's own bytes alone: the hash is right, but TensorRT refuses the engine.
    old = plan.read_bytes().replace(b"v100300] [b30", b"v100100] [b12")
    plan.write_bytes(old)
    about = plan.with_suffix(".json")
    noted = json.loads(about.read_text())
    about.write_text(json.dumps({**noted, "sha256": hashlib.sha256(old).hexdigest()}))
    assert build(server, model, tmp_path)[1].built_now
    about.write_text("{")
    assert build(server, model, tmp_path)[1].built_now


def test_flags_follow_the_scheme_and_the_version(board, tmp_path):
    model, server = write_float_model(tmp_path / "m.onnx"), board(TRT_VERSION="v8502")
    _, engine = build(server, model, tmp_path, scheme="wi8_ai8_symmetric")
    assert engine.version == "8.5.2"
    assert engine.flags == ("--int8", "--fp16")
    assert "--buildOnly" in (tmp_path / "calls.txt").read_text()


def test_no_trtexec_says_what_to_install(make_sshd, tmp_path):
    model = write_float_model(tmp_path / "m.onnx")
    server = make_sshd({"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"})
    error = measure(model, server.board, "--scheme", "fp32", cwd=tmp_path, code=4)
    assert "no trtexec there" in error
    assert "nvidia-jetpack" in error


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"TRT_BUILD": "fails"}, "stand-in refuses the graph"),
        ({"TRT_BUILD": "saves nothing"}, "saved no engine"),
        ({"TRT_TIMES": "not numbers"}, "no finite number"),
    ],
)
def test_what_trtexec_does_wrong_is_told(board, tmp_path, variables, words):
    model = write_float_model(tmp_path / "m.onnx")
    error = measure(model, board(**variables).board, "--scheme", "fp16", cwd=tmp_path, code=4)
    assert words in error


def test_trtexec_ends_when_the_host_is_gone(board, tmp_path):
    model, server = write_float_model(tmp_path / "m.onnx"), board(TRT_RUN="hangs")
    host = subprocess.Popen(
        [
            *(sys.executable, "-c", "from edgekd.cli import main; main()", "measure", str(model), "--board"),
            *(server.board, "--runtime", "tensorrt", "--scheme", "fp16", "--plan", "quick"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    try:
        assert wait_until(lambda: bool(processes_naming("--loadEngine=")), 60)
    finally:
        host.kill()
        host.wait()
    assert wait_until(lambda: not processes_naming("--loadEngine="), 30)


def test_what_cannot_be_had_with_trtexec_is_refused_before_the_board(tmp_path):
    model = write_float_model(tmp_path / "m.onnx")
    for option in (("--rate-hz", "30"), ("--power", "rapl")):
        assert option[0] in measure(model, "local", "--scheme", "fp16", *option, cwd=tmp_path, code=3)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] [b30] # trtexec", "10.3.0 b30"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec --help", "8.5.2"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v110300] [b99]", "11.3.0 b99"),
        ("trtexec: error while loading shared libraries", None),
    ],
)
def test_versions(text, version):
    assert parse_version(text) == version


def test_files_of_the_documented_form_and_others():
    text = '[\n  { "startH2dMs" : 1, "startComputeMs" : 2, "latencyMs" : 3.5, "endD2hMs" : 5 }\n]'
    assert timed_runs(text, 2.0) == [(1.0, 3.5, 5.0)]
    with pytest.raises(AgentError, match="no timed run"):
        timed_runs(text, 2.5)
    for bad in ("", "{}", "[1]", '[{"latencyMs" : 1}]', text.replace("3.5", "nan"), text.replace("3.5", '"3.5"')):
        with pytest.raises(AgentError):
            timed_runs(bad, 0.0)
    assert output_values('[ { "name" : "o", "values" : [ 1, -2.5 ] } ]') == [1.0, -2.5]
    for bad in ("[]", '[ { "values" : [] } ]', '[ { "values" : [ nan ] } ]', '[ { "values" : [ null ] } ]'):
        with pytest.raises(AgentError):
            output_values(bad)
    assert layer_times('[ { "count" : 3 }, { "name" : "a", "averageMs" : 0.5 } ]') == [
        {"name": "a", "kind": "layer", "mean_us": 500.0, "runs": 3}
    ]


def test_a_float32_file_becomes_float16(tmp_path):
    import onnxruntime

    from edgekd.convert.audit import audit_file
    from edgekd.errors import ConfigurationError
    from edgekd.pipeline.boards.tensorrt import half_precision

    single = write_float_model(tmp_path / "m.onnx")
    half = tmp_path / "student_fp16.onnx"
    half.write_bytes(half_precision(single.read_bytes()))
    assert audit_file(half, "fp16").honest
    data = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    outputs = [
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"input": data})[0]
        for path in (single, half)
    ]
    assert outputs[1].dtype == np.float32
    assert 0 < np.abs(outputs[0] - outputs[1]).max() < 0.01
    with pytest.raises(ConfigurationError, match="float32"):
        half_precision(half_precision(single.read_bytes()))


def test_found_where_jetpack_puts_it_or_in_the_path(board):
    with open_session(board().board) as session:
        found = find_trtexec(session)
    assert found.path.endswith("/tensorrt/trtexec")
    assert found.skip_inference == "--skipInference"
