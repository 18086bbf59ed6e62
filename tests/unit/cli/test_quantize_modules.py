"""`edgekd quantize` of modules as people bring them, and what it says of those that it cannot take."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from edgekd.cli import app

MODULES = """
import torch
from torch import nn
from torch.nn import functional as F


def normed():
    torch.manual_seed(1)
    norm = nn.BatchNorm1d(8)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.weight.data.normal_(1, 0.3)
    return nn.Sequential(nn.Conv1d(3, 8, 5), norm, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4))
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
