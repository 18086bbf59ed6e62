"""The agent's parts that need no board."""

from __future__ import annotations

import ast
import io
import json
import math
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgekd.board.agent
from edgekd.board.agent.inputs import InputSpec, for_model, layout_of, random_arrays, stored_labels, stored_rows
from edgekd.board.agent.timing import choose_stride
from edgekd.board.agent.wire import AgentError
from edgekd.board.measuring.agent_archive import ON_HOST, agent_archive
from edgekd.board.measuring.agent_lines import parse_line
from edgekd.errors import BoardError

SOURCES = sorted(Path(edgekd.board.agent.__file__).parent.glob("*.py"))
ALLOWED = {*sys.stdlib_module_names, "numpy"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_agent_is_python_3_9_and_imports_nothing_of_edgekd(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= ALLOWED
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module is not None
            assert node.module.split(".")[0] in ALLOWED
        elif isinstance(node, ast.ImportFrom):
            # One level up lies `power`, which goes to the board with the agent.
            assert node.level == 1 or node.module.split(".")[0] == "power"
        assert not isinstance(node, ast.Match)


def test_archive_is_the_same_every_time_and_holds_every_module():
    first = agent_archive()
    agent_archive.cache_clear()
    assert agent_archive() == first
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        names = set(archive.namelist())
    assert {"__main__.py", *(f"edgekd_board/agent/{path.name}" for path in SOURCES)} <= names
    assert "edgekd_board/power/ina3221.py" in names
    assert not names & {f"edgekd_board/power/{name}" for name in ON_HOST}


def spec(shape, dtype="float32", scale=None, zero_point=0):
    return InputSpec("x", shape, np.dtype(dtype), scale, zero_point)


def test_layout_follows_the_shape():
    assert layout_of(spec((1, 1, 16, 3)), (3, 1, 16), prefer_nhwc=False) == "nhwc"
    assert layout_of(spec((1, 3, 1, 16)), (3, 1, 16), prefer_nhwc=True) == "nchw"
    # Where both fit, the runtime's own habit decides.
    assert layout_of(spec((1, 3, 3, 3)), (3, 3, 3), prefer_nhwc=True) == "nhwc"
    assert layout_of(spec((1, 3, 3, 3)), (3, 3, 3), prefer_nhwc=False) == "nchw"
    with pytest.raises(AgentError, match="neither as NCHW nor as NHWC"):
        layout_of(spec((1, 8, 8, 3)), (3, 8, 9), prefer_nhwc=True)


def test_transposing_and_quantizing():
    row = np.arange(6, dtype=np.float32).reshape(3, 1, 2)
    fed = for_model(row, spec((1, 1, 2, 3)), "nhwc")
    assert fed.shape == (1, 1, 2, 3)
    assert fed[0, 0, 1].tolist() == [1, 3, 5]
    assert fed.flags.c_contiguous
    quantized = for_model(row * 10, spec((1, 3, 1, 2), "int8", 0.5, -120), "nchw")
    assert quantized.dtype == np.int8
    assert quantized.reshape(-1).tolist() == [-120, -100, -80, -60, -40, -20]
    assert for_model(np.full((1, 1, 1), 1e9, np.float32), spec((1, 1, 1, 1), "int8", 0.5), "nchw").item() == 127
    with pytest.raises(AgentError, match="no scale"):
        for_model(row, spec((1, 3, 1, 2), "int8"), "nchw")


@given(st.floats(0.001, 10), st.integers(-128, 127), st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20))
def test_quantized_values_are_the_nearest_on_the_grid(scale, zero_point, values):
    row = np.array(values, np.float32).reshape(1, 1, -1)
    got = for_model(row, spec((1, 1, 1, len(values)), "int8", scale, zero_point), "nchw").astype(np.float64)
    back = (got - zero_point) * scale
    inside = (got > -128) & (got < 127)
    assert np.all(np.abs(back - row)[inside] <= scale * 0.501 + 1e-4)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_stored_rows_come_one_by_one(tmp_path, save):
    inputs = np.random.default_rng(0).standard_normal((5, 3, 2, 4)).astype(np.float32)
    path = tmp_path / "inputs.npz"
    save(path, inputs=inputs, labels=np.arange(5))
    shape, rows = stored_rows(path, "inputs")
    assert shape == inputs.shape
    assert np.array_equal(np.stack(list(rows)), inputs)
    assert stored_labels(path).tolist() == [0, 1, 2, 3, 4]


def test_stored_inputs_that_cannot_be_read(tmp_path):
    path = tmp_path / "inputs.npz"
    np.savez(path, other=np.zeros(3))
    with pytest.raises(AgentError, match="no readable array 'inputs'"):
        stored_rows(path, "inputs")
    np.savez(path, inputs=np.array([{}], dtype=object))
    with pytest.raises(AgentError, match="array of numbers"):
        stored_rows(path, "inputs")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(AgentError):
        stored_rows(path, "inputs")


def test_random_inputs_are_the_same_each_time_and_fit():
    specs = [spec((1, 2), "int8", 0.1), spec((1, 3), "float32"), spec((1, 4), "int64"), spec((1,), "bool")]
    first, again = random_arrays(specs, 2, 0), random_arrays(specs, 2, 0)
    for left, right in zip(first, again, strict=True):
        for one, other, which in zip(left, right, specs, strict=True):
            assert np.array_equal(one, other)
            assert (one.shape, one.dtype) == (which.shape, which.dtype)


@given(st.integers(1, 10**9), st.floats(1, 600), st.integers(1, 2000), st.integers(1, 500))
def test_stride_keeps_few_enough_and_meets_every_input(fastest_ns, seconds, least_runs, inputs):
    keep = 20_000
    stride = choose_stride(fastest_ns, seconds, least_runs, keep, inputs)
    assert stride * keep >= seconds * 1e9 / fastest_ns
    assert stride == 1 or math.gcd(stride, inputs) == 1
    expected = max(least_runs, seconds * 1e9 / fastest_ns)
    # Not coarser than it has to be: at least a third of what may be kept is kept.
    assert stride == 1 or expected / stride > keep / 3 or stride < 40


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '{"kind": "unheard"}',
        '{"kind": "end", "more": 1}',
        '{"kind": "samples", "start_ns": [-1], "duration_ns": [1]}',
        json.dumps({"kind": "samples", "start_ns": [1] * 1001, "duration_ns": [1] * 1001}),
        '{"kind": "timed", "runs": 1e400, "timed_ns": 1}',
        json.dumps({"kind": "error", "code": "x", "message": "y" * 30_000}),
        '{"kind": "timed", "runs": %s, "timed_ns": 1}' % ("9" * 5000),
    ],
)
def test_lines_that_are_no_records_are_refused(text):
    with pytest.raises(BoardError, match="not one of its records"):
        parse_line(text, "pi")
