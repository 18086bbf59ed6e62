"""`edgekd quantize --prune`: it has to pay, and says what it cost."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.convert.random_student import write_random_student
from edgekd.errors import BuildError
from edgekd.pipeline.quantization.pruning import refuse_if_useless
from edgekd.pipeline.quantization.pruning_result import Worth
from edgekd.pipeline.quantization.relative_latency import latency_ratio
from edgekd.records import Estimate

MODEL = """
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4),
    )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prune")
    (folder / "net.py").write_text(MODEL)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 300)
    inputs = generator.normal(0, 0.5, (300, 1, 16, 16)).astype(np.float32)
    for index, label in enumerate(labels):
        inputs[index, 0, 4 * label : 4 * label + 4] += 2
    (folder / "data").mkdir()
    np.savez(folder / "data" / "calibration.npz", inputs=inputs, labels=labels)
    return folder


def run(place, out, *arguments):
    command = ["quantize", f"{place}/net.py:make", "--calib", f"{place}/data", "--out", str(out), "--qat", "never"]
    return CliRunner().invoke(app, [*command, "--epochs", "1", *arguments])


@pytest.mark.slow
def test_a_pruned_module_goes_through_the_same_chain(place, tmp_path):
    result = run(place, tmp_path / "out", "--prune", "0.6", "--json", "--profile", "rpi4")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["pruning"]
    assert found["parameters"] <= 0.4 * found["parameters_before"]
    worth = found["worth"]
    assert worth["file_bytes"] < worth["file_bytes_before"]
    assert worth["latency_ratio"]["high"] < 1 and worth["predicted_ms"] < worth["predicted_ms_before"]
    drawn = ElementTree.parse(tmp_path / "out" / "layers.svg").getroot()
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg" and "saturated" in "".join(drawn.itertext())
    files = json.loads(result.stdout)["artifacts"]
    written = next(entry for entry in files if (entry["format"], entry["scheme"]) == ("tflite", "wi8_ai8"))
    # Weights do not change a file's size, but for a few bytes of alignment.
    assert written["size_bytes"] == pytest.approx(worth["file_bytes"], rel=0.02)


def test_more_than_can_go_is_a_failed_build_and_writes_nothing(place, tmp_path):
    result = run(place, tmp_path / "out", "--prune", "0.99")
    assert result.exit_code == 5 and "at most" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prune", "1.5"), "no share"),
        (("--profile", "rpi4"), "with --prune"),
        (("--prune", "0.5", "--profile", "x"), "x"),
    ],
)
def test_what_cannot_be_meant_is_refused(place, tmp_path, arguments, message):
    result = run(place, tmp_path / "out", *arguments)
    assert result.exit_code == 3 and message in result.stderr
    assert not (tmp_path / "out").exists()


def worth(**changes):
    ratio = changes.pop("ratio", (0.5, 0.4, 0.6))
    value, low, high = ratio
    figures = {
        "file_bytes_before": 1000,
        "file_bytes": 600,
        "latency_ratio": Estimate(value=value, low=low, high=high, basis="measured", source="a test"),
        "profile": "rpi4",
        "predicted_ms_before": 2.0,
        "predicted_ms": 1.0,
    }
    return Worth(**{**figures, **changes})


def test_what_pays_passes():
    refuse_if_useless(worth(), 0.5)
    refuse_if_useless(worth(profile=None, predicted_ms_before=None, predicted_ms=None), 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_bytes": 1000}, r"does not shrink \(1000 to 1000 bytes\)"),
        ({"ratio": (0.99, 0.9, 1.02)}, r"does not surely fall \(to 99.0%, 95 % interval 90.0% to 102.0%\)"),
        ({"predicted_ms": 2.5}, r"predicted on rpi4 does not fall \(2 to 2.5 ms\)"),
    ],
)
def test_what_does_not_pay_is_refused_with_figures(changes, message):
    with pytest.raises(BuildError, match=message):
        refuse_if_useless(worth(**changes), 0.5)


@pytest.mark.parametrize("file_format", ["tflite", "onnx"])
def test_a_network_of_a_tenth_of_the_work_is_faster(tmp_path, file_format):
    paths = []
    for width in (64, 8):
        model = nn.Sequential(
            *(nn.Conv2d(8, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)),
        )
        paths.append(tmp_path / f"{width}.{file_format}")
        write_random_student(model.eval(), torch.randn(1, 8, 32, 32), paths[-1])
    assert latency_ratio(*paths).high < 1 < latency_ratio(*reversed(paths)).low
