"""`edgekd quantize` on a user's own modules, from the files that a user has."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgekd.cli import app

TASK = Path(__file__).resolve().parents[2] / "digits_task.py"
GATED = {"torch-onnx", "torch-tflite", "onnx-tflite", "onnx-tflite reference"}
MODEL = """
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )


def hurt():
    # The trained network with channels of very different sizes: the same in float, not in eight bits.
    from pathlib import Path

    model = make()
    model.load_state_dict(torch.load(Path(__file__).with_name("net.pt")))
    sizes = torch.logspace(0, 4, 16)
    with torch.no_grad():
        model[5].weight.mul_(sizes)
        model[5].bias.mul_(sizes)
        model[7].weight.div_(sizes[None, :, None, None])
    return model


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.norm, self.head = nn.Embedding(50, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, ids):
        return self.head(self.norm(self.embedding(ids)).mean(1))


def words():
    torch.manual_seed(0)
    return Words()


def unsupported():
    return nn.Sequential(make(), nn.Sequential(nn.Softshrink()))


def not_a_module():
    return 3


def raises():
    raise KeyError("layers")


class Signals(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(3, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.head = nn.Linear(8, 4)

    def forward(self, inputs):
        return self.head(self.body(inputs))


def signals():
    torch.manual_seed(0)
    return Signals()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    import runpy

    import torch
    from torch.nn import functional

    folder = tmp_path_factory.mktemp("quantize")
    (folder / "net.py").write_text(MODEL)
    model = runpy.run_path(str(folder / "net.py"))["make"]()
    task = runpy.run_path(str(TASK))["load"]()
    inputs, labels = torch.from_numpy(task.train.inputs), torch.from_numpy(task.train.labels)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(300):
        rows = torch.randint(0, len(inputs), (64,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
        optimizer.step()
    torch.save(model.state_dict(), folder / "net.pt")
    (folder / "unlabelled").mkdir()
    np.save(folder / "unlabelled" / "a.npy", task.train.inputs[:200])
    np.savez(folder / "labelled.npz", inputs=task.train.inputs[:200], labels=task.train.labels[:200])
    return folder


def quantize(place, *arguments, factory="make", weights=True):
    given = ["--weights", place / "net.pt"] if weights else []
    result = CliRunner().invoke(
        app, ["quantize", f"{place / 'net.py'}:{factory}", *map(str, [*given, *arguments])], env={"COLUMNS": "250"}
    )
    return result, json.loads(result.stdout) if result.stdout.startswith("{") else {}


def test_a_users_module_becomes_honest_files_with_what_they_cost(place, tmp_path):
    result, found = quantize(place, "--calib", TASK, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "quantize.json").read_text()) == found
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("model_wi8_ai8.tflite", "model_wi8_ai8.onnx", "model_fp32.tflite", "model_fp32.onnx"),
        *("quantize.json", "layers.svg"),
    }
    assert found["metric"] == "accuracy" and found["test_inputs"] == 540
    assert found["fp32"]["accuracy"] > 0.75
    assert found["ptq"]["accuracy"] == pytest.approx(found["fp32"]["accuracy"], abs=0.03)
    assert found["file_accuracy"] == pytest.approx(found["ptq"]["accuracy"], abs=0.01)
    assert found["ptq"]["seconds"] > 0 and set(found["ptq"]["detail"]["divergence_nats"]) >= {"ema", "mse"}
    assert all(artifact["audit"]["honest"] for artifact in found["artifacts"])
    assert {rung["pair"] for rung in found["parity"]} == GATED
    damage = [layer["damage_nats"] for layer in found["layers"]]
    assert damage == sorted(damage, reverse=True) and damage[0] > 0 and len(damage) >= 4
    assert CliRunner().invoke(app, ["audit", str(tmp_path / "out" / "model_wi8_ai8.onnx")]).exit_code == 0


@pytest.mark.slow
def test_training_is_done_where_it_is_asked_for_and_judged_where_a_limit_is(place, tmp_path):
    result, found = quantize(
        *(place, "--calib", TASK, "--out", tmp_path / "out", "--qat", "always", "--epochs", 1, "--observer", "ema"),
        *("--accuracy-drop-max", 0.2, "--json"),
    )
    assert result.exit_code == 0, result.output
    assert found["qat"]["detail"]["epochs"] == 1 and found["qat"]["seconds"] > 0
    assert found["qat"]["validation_accuracy"] >= found["ptq"]["validation_accuracy"]
    assert found["chosen"] == (
        "qat" if found["qat"]["validation_accuracy"] > found["ptq"]["validation_accuracy"] else "ptq"
    )
    assert found["verdict"]["constraint"] == "accuracy_drop_max" and found["verdict"]["outcome"] == "met"


def test_inputs_without_labels_are_compared_with_the_float_module(place, tmp_path):
    result, found = quantize(
        place, "--calib", place / "unlabelled", "--out", tmp_path / "out", "--observer", "mse", "--json"
    )
    assert result.exit_code == 0, result.output
    assert found["metric"] == "agreement with fp32"
    assert found["fp32"]["accuracy"] == 1.0 and found["test_inputs"] == 40
    assert found["ptq"]["detail"]["observer"] == "mse"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["wi8_ai8_symmetric", "wi8_ai16", "wi8", "fp16"])
def test_other_schemes_say_what_they_are(place, tmp_path, scheme):
    result, found = quantize(
        *(place, "--calib", place / "labelled.npz", "--out", tmp_path / "out", "--scheme", scheme),
        *("--observer", "min-max", "--json"),
    )
    assert result.exit_code == 0, result.output
    assert found["scheme"] == scheme and found["metric"] == "accuracy"
    formats = {artifact["format"] for artifact in found["artifacts"] if artifact["scheme"] == scheme}
    assert formats == ({"onnx"} if scheme == "wi8_ai8_symmetric" else {"tflite", "onnx"})


def test_mixed_files_name_what_they_keep_in_float(place, tmp_path):
    result, found = quantize(
        *(place, "--calib", TASK, "--out", tmp_path / "out", "--observer", "ema", "--qat", "never", "--mixed"),
        *("--float-io", "--opset", 18, "--accuracy-drop-max", 0.02, "--json"),
        factory="hurt",
        weights=False,
    )
    assert result.exit_code in (0, 6), result.output
    assert found["ptq"]["accuracy"] < found["fp32"]["accuracy"] - 0.05
    assert found["mixed"]["accuracy"] > found["fp32"]["accuracy"] - 0.03
    assert found["scheme"] == "wi8_ai8_mixed" and "held with" in found["mixed_report"]["reason"]
    kept = found["mixed_report"]["kept"]
    assert kept and all(entry["divergence_nats"] < entry["divergence_before_nats"] for entry in kept)
    assert found["mixed"]["validation_accuracy"] == kept[-1]["validation_accuracy"]
    assert {rung["pair"] for rung in found["parity"]} == GATED
    assert {path.name for path in (tmp_path / "out").glob("*mixed*")} == {
        *("model_wi8_ai8_mixed.tflite", "model_wi8_ai8_mixed.onnx")
    }
    audit = CliRunner().invoke(app, ["audit", str(tmp_path / "out" / "model_wi8_ai8_mixed.tflite"), "--json"])
    assert audit.exit_code == 0 and json.loads(audit.stdout)["scheme"] == "wi8_ai8_mixed"


def test_nothing_is_kept_in_float_where_int8_is_good_enough(place, tmp_path):
    result, found = quantize(
        *(place, "--calib", place / "labelled.npz", "--out", tmp_path / "out", "--observer", "ema", "--mixed"),
        *("--accuracy-drop-max", 1, "--json"),
    )
    assert result.exit_code == 0, result.output
    assert found["scheme"] == "wi8_ai8" and found["mixed"] is None
    assert found["mixed_report"]["reason"].startswith("not needed")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--scheme", "fp16", "--mixed"], 3, "only wi8_ai8"),
        (["--steps", "learned", "--qat", "never"], 3, "--qat never leaves it out"),
        (["--scheme", "wi8_ai16", "--allow-float-ops"], 3, "only wi8_ai8"),
        (["--scheme", "fp16", "--float-io"], 3, "leave out --float-io"),
        (["--opset", "12", "--observer", "ema"], 3, "a scale per channel came with opset 13"),
        (["--opset", "99", "--observer", "ema"], 3, "opset 99 is unknown"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(place, tmp_path, arguments, code, message):
    result, _ = quantize(place, "--calib", place / "labelled.npz", "--out", tmp_path / "out", *arguments)
    assert result.exit_code == code and message in result.output, result.output


def test_ids_are_taken_and_what_has_no_int8_form_is_kept_in_float_by_leave(place, tmp_path):
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(0, 50, (80, 12)))
    arguments = ("--calib", tmp_path / "ids.npy", "--out", tmp_path / "out", "--observer", "ema", "--json")
    result, _ = quantize(place, *arguments, factory="words", weights=False)
    assert result.exit_code == 5 and "layer_norm.default at norm (LayerNorm)" in " ".join(result.output.split())
    assert "--allow-float-ops" in result.output and not (tmp_path / "out").exists()
    result, found = quantize(place, *arguments, "--allow-float-ops", factory="words", weights=False)
    assert result.exit_code == 0, result.output
    assert found["scheme"] == "wi8_ai8_mixed" and found["float_operators"] == ["norm (layer_norm)"]
    assert {rung["pair"] for rung in found["parity"]} == GATED


def test_signals_of_rank_3_are_taken(place, tmp_path):
    np.save(tmp_path / "signals.npy", np.random.default_rng(0).normal(size=(60, 3, 32)).astype(np.float32))
    result, found = quantize(
        *(place, "--calib", tmp_path / "signals.npy", "--out", tmp_path / "out", "--observer", "ema", "--json"),
        factory="signals",
        weights=False,
    )
    assert result.exit_code == 0, result.output
    assert found["ptq"]["accuracy"] > 0.5


def test_an_operator_without_a_form_is_named_with_its_place(place, tmp_path):
    result, _ = quantize(place, "--calib", TASK, "--out", tmp_path / "out", factory="unsupported", weights=False)
    assert result.exit_code == 5
    assert "softshrink" in result.output and "1.0 (Softshrink)" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("factory", "calibration", "message"),
    [
        ("gone", TASK, "no function 'gone'; it has"),
        ("not_a_module", TASK, "returned int, not a torch module"),
        ("raises", TASK, "KeyError: 'layers'"),
        ("signals", TASK, "do not fit the model"),
        ("make", "no-such-task", "there is no task"),
    ],
)
def test_what_cannot_be_used_is_a_configuration_error(place, tmp_path, factory, calibration, message):
    result, _ = quantize(place, "--calib", calibration, "--out", tmp_path / "out", factory=factory)
    assert result.exit_code == 3
    assert message in result.output
    assert not (tmp_path / "out").exists()
