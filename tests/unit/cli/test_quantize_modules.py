"""`edgekd quantize` of modules as people bring them, and what it says of those that it cannot take."""

import json
import platform
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgekd.cli import app

# onnxruntime's products of signed int8 saturate on x86 without VNNI; on ARM boards, and with VNNI, sums are exact.
EXACT_SUMS = platform.machine() != "x86_64" or "vnni" in Path("/proc/cpuinfo").read_text()
MOST_SYMMETRIC = 0.05 if EXACT_SUMS else 0.5

MODULES = """
import torch
from torch import nn
from torch.nn import functional as F


def normed():
    torch.manual_seed(1)
    norm = nn.BatchNorm1d(8)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.weight.data.normal_(1, 0.3)
    return nn.Sequential(nn.Conv1d(3, 8, 5), norm, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4))


def pooled():
    return nn.Sequential(nn.AvgPool2d((6, 4)), nn.Flatten())


def diverged():
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
    model[1].weight.data[0, 0] = float("nan")
    return model


class Answers(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.head, self.answer = nn.Linear(144, 4), answer

    def forward(self, inputs):
        return self.answer(self.head(inputs.flatten(1)))


def pair():
    return Answers(lambda logits: (logits, logits))


def named():
    return Answers(lambda logits: {"logits": logits})


def refusing():
    return Answers(lambda logits: logits.view(-1, 3, 3))


class TwoInputs(Answers):
    def forward(self, inputs, more):
        return self.head(inputs.flatten(1)) + more


def two_inputs():
    return TwoInputs(None)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.first, self.second, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.third = nn.Linear(16, 16)
        self.third.weight = self.second.weight

    def forward(self, inputs):
        inputs = F.relu(self.stem(inputs))
        inputs = self.body(F.relu(self.body(inputs))) + inputs
        return self.head(F.relu(self.third(F.relu(self.second(F.relu(self.first(inputs.mean([2, 3]))))))))


def twice():
    torch.manual_seed(3)
    return Twice()


def padded_pool():
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 1, 1), nn.MaxPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )


def branching():
    return Answers(lambda logits: logits * 2 if logits.sum() > 0 else logits)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    (folder / "net.py").write_text(MODULES)
    generator = np.random.default_rng(0)
    np.save(folder / "signals.npy", generator.normal(size=(60, 3, 32)).astype(np.float32))
    np.save(folder / "images.npy", generator.normal(size=(60, 1, 12, 12)).astype(np.float32))
    return folder


def quantize(place, out, factory, calibration="images.npy", *arguments):
    given = ["--calib", place / calibration, "--out", out, "--observer", "ema", "--qat", "never", "--json", *arguments]
    result = CliRunner().invoke(
        app, ["quantize", f"{place / 'net.py'}:{factory}", *map(str, given)], env={"COLUMNS": "250"}
    )
    return result, json.loads(result.stdout) if result.stdout.startswith("{") else {}


def made(place, factory):
    import runpy

    return runpy.run_path(str(place / "net.py"))[factory]().eval()


def test_help_names_the_extra_and_the_outputs():
    said = " ".join(CliRunner().invoke(app, ["quantize", "--help"], env={"COLUMNS": "250"}).output.split())
    assert "Needs edgekd[prune]" in said
    assert "logits (N, classes)" in said and "edgekd parity RUN" in said


@pytest.mark.parametrize("scheme", ["wi8_ai8", "fp16"])
def test_float_files_of_a_module_for_signals_say_what_it_says(place, tmp_path, scheme):
    import torch

    from edgekd.convert.inference import run_model

    result, _ = quantize(place, tmp_path / "out", "normed", "signals.npy", "--scheme", scheme)
    assert result.exit_code == 0, result.output
    inputs = np.load(place / "signals.npy")
    with torch.no_grad():
        expected = made(place, "normed")(torch.from_numpy(inputs)).numpy()
    for file_format in ("tflite", "onnx"):
        found = run_model(tmp_path / "out" / f"model_fp32.{file_format}", inputs[:, :, None])
        assert np.abs(found - expected).max() < 1e-4


def test_files_that_parity_leaves_out_are_held_against_torch(place, tmp_path):
    result, found = quantize(place, tmp_path / "out", "normed", "signals.npy", "--scheme", "wi8_ai8_symmetric")
    assert result.exit_code == 0, result.output
    distances = {distance["path"]: distance for distance in found["distances"]}
    assert distances.keys() == {
        *("model_fp32.tflite", "model_fp32.onnx", "model_fp16.onnx", "model_wi8_ai8_symmetric.onnx")
    }
    assert {name for name, distance in distances.items() if distance["against"] == "the rounded module"} == {
        "model_wi8_ai8_symmetric.onnx"
    }
    assert all(distance["share_of_range"] < 1e-5 for name, distance in distances.items() if "fp32" in name)
    assert 1e-6 < distances["model_fp16.onnx"]["share_of_range"] < 1e-2
    assert distances["model_wi8_ai8_symmetric.onnx"]["share_of_range"] < MOST_SYMMETRIC


def test_a_float_file_that_computes_something_else_is_refused(place, tmp_path):
    import torch

    from edgekd.convert.distances import file_distance, require_float_alike
    from edgekd.convert.isolated import write_network
    from edgekd.errors import BuildError
    from edgekd.nn.quantized.model import quantize_model

    model, inputs = made(place, "normed"), torch.from_numpy(np.load(place / "signals.npy")[:8])
    path = tmp_path / "model_fp32.onnx"
    write_network(quantize_model(model, inputs, "fp32").network(), path)
    model[1].running_mean += 0.05
    with torch.no_grad():
        found = file_distance(path, inputs[:, :, None].numpy(), "the module", model(inputs).numpy())
    with pytest.raises(BuildError, match=f"model_fp32.onnx .* up to {found.max_abs:.4g} off"):
        require_float_alike([found])


def test_a_module_without_parameters_is_taken(place, tmp_path):
    result, found = quantize(place, tmp_path / "out", "pooled")
    assert result.exit_code == 0, result.output
    assert {distance["path"] for distance in found["distances"]} == {"model_fp32.tflite", "model_fp32.onnx"}


@pytest.mark.parametrize(
    ("factory", "code", "message"),
    [
        ("diverged", 5, "1.weight of .*:diverged holds 1 of 576 values that are NaN or infinite"),
        ("pair", 3, r"gives 2 outputs in a tuple; edgekd takes one tensor"),
        ("named", 3, r"gives 1 output in a dict \(logits\); edgekd takes one tensor"),
        ("refusing", 3, r"net.py:\d+ in <lambda>: return Answers.* RuntimeError: shape '\[-1, 3, 3\]' is invalid"),
        (
            "branching",
            5,
            r"error: Answers cannot be traced .* depends on values .*net.py:\d+ in <lambda>: return",
        ),
        ("two_inputs", 3, r"missing 1 required positional argument: 'more'"),
    ],
)
def test_modules_that_cannot_be_taken_are_told_why(place, tmp_path, factory, code, message):
    import re

    result, _ = quantize(place, tmp_path / "out", factory)
    assert result.exit_code == code, result.output
    assert re.search(message, " ".join(result.output.split())), result.output
    assert "def forward(self, arg" not in result.output and "<" not in result.output.replace("<lambda>", "")


def test_what_fails_leaves_nothing_behind(place, tmp_path):
    from edgekd.errors import BuildError
    from edgekd.store import writing_folder

    for folder in (tmp_path / "new", tmp_path):
        with pytest.raises(BuildError), writing_folder(folder) as temporary:
            (temporary / "model.tflite").write_bytes(b"refused")
            raise BuildError("refused")
        assert not list(tmp_path.iterdir())
        with writing_folder(folder) as temporary:
            (temporary / "model.tflite").write_bytes(b"kept")
        assert [path.name for path in folder.iterdir()] == ["model.tflite"]
        (folder / "model.tflite").unlink()
        (tmp_path / "new").rmdir() if folder != tmp_path else None


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["wi8_ai8", "wi8_ai8_symmetric", "wi8_ai16", "wi8", "fp16"])
def test_weights_that_are_used_twice_are_stored_once(place, tmp_path, scheme):
    result, found = quantize(place, tmp_path / "out", "twice", "images.npy", "--scheme", scheme)
    assert result.exit_code == 0, result.output
    assert all(not artifact["audit"]["findings"] for artifact in found["artifacts"])
    most = MOST_SYMMETRIC if scheme == "wi8_ai8_symmetric" else 0.05
    assert all(distance["share_of_range"] < most for distance in found["distances"])
    if scheme == "wi8_ai8":
        accelerated = CliRunner().invoke(app, ["audit", str(tmp_path / "out" / "model_wi8_ai8.onnx"), "--json"])
        (onnxruntime,) = [
            entry for entry in json.loads(accelerated.stdout)["accelerated"] if entry["runtime"] == "onnxruntime"
        ]
        assert onnxruntime["findings"] == []


@pytest.mark.parametrize("scheme", ["wi8_ai8", "wi8_ai16"])
def test_padding_never_wins_a_maximum_of_either_width(place, tmp_path, scheme):
    result, found = quantize(place, tmp_path / "out", "padded_pool", "images.npy", "--scheme", scheme)
    assert result.exit_code == 0, result.output
    assert all(distance["share_of_range"] < 0.01 for distance in found["distances"])
