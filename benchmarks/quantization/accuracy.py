"""Accuracy of int8 beside fp32, and beside other tools' static PTQ on the same weights and calibration inputs.

    python -m benchmarks.quantization.accuracy [--seeds N] [--case NAME]

Each row is one trained network; rows are appended to results/accuracy.jsonl, and one that is there is not run again.
All tools get the same folded float weights, as the same fp32 file, and the same calibration inputs. Accuracies are of
the files themselves, over evenly spaced test inputs: .tflite by LiteRT as deployed, .onnx by onnxruntime in exact mode,
so that x86's saturating products are nobody's fault.

The hard case is a network of depthwise-separable blocks with hard-swish, whose batch norms start with gains spread
over a factor of 100 and are trained from there: channels of one tensor end up with very different ranges, and no ReLU
lets them be equalized.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.quantization.run import RESULTS
from benchmarks.quantization.zoo_blocks import conv_bn, head
from edgekd.convert.inference import run_model
from edgekd.convert.isolated import write_network
from edgekd.core.spaces import space_named
from edgekd.core.spread import evenly
from edgekd.nn.quantized.learned_steps import learn_steps, settle_steps
from edgekd.nn.quantized.model import QuantizedModel, quantize_model
from edgekd.nn.quantized.observers import calibrate
from edgekd.nn.quantized.post_training import post_training_quantize
from edgekd.nn.students import Student
from edgekd.tasks import Task, load_task, student_inputs

ROWS = RESULTS / "accuracy.jsonl"
TEST_INPUTS, CALIBRATION_INPUTS, QAT_STEPS = 2000, 512, 200
COLUMNS = ("fp32", "calibrated", "ptq", "qat", "qat-learned", "kept", "ai-edge-quantizer", "onnxruntime")

PAIRS = (
    *((column, "fp32") for column in ("ptq", "qat", "qat-learned", "kept", "ai-edge-quantizer", "onnxruntime")),
    *(("kept", tool) for tool in ("ai-edge-quantizer", "onnxruntime")),
    *(("ptq", tool) for tool in ("ai-edge-quantizer", "onnxruntime")),
    ("qat-learned", "qat"),
)


def image_student() -> nn.Module:
    choices = {"resolution": 14, "stem_stride": 2, "kernel": 3, "width": 8, "depth": 2, "expansion": 3}
    return Student(space_named("inverted-residual").architecture(choices, (1, 28, 28), 10))


def signal_student() -> nn.Module:
    choices = {"window": 96, "stem_stride": 2, "kernel": 5, "width": 16, "depth": 2}
    return Student(space_named("ds-cnn").architecture(choices, (6, 1, 128), 7))


def wide_depthwise() -> nn.Module:
    layers: list[nn.Module] = [conv_bn(1, 16, stride=2, activation=nn.Hardswish)]
    for _ in range(4):
        layers += [conv_bn(16, 16, groups=16, activation=nn.Hardswish), conv_bn(16, 16, 1, activation=nn.Hardswish)]
    model = nn.Sequential(*layers, head(16))
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.copy_(10.0 ** torch.empty_like(layer.weight).uniform_(-1.0, 1.0))
    return model


CASES: dict[str, tuple[str, Callable[[], nn.Module], tuple[int, int, int], int]] = {
    "watch-gestures": ("watch-gestures", signal_student, (6, 1, 96), 800),
    "fashion-mnist": ("fashion-mnist", image_student, (1, 14, 14), 600),
    "wide depthwise": ("fashion-mnist", wide_depthwise, (1, 28, 28), 500),
}


def fit(model: nn.Module, inputs: Tensor, labels: Tensor, steps: int, rate: float, teacher: Tensor | None) -> None:
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for step in range(steps):
        if isinstance(model, QuantizedModel):
            model.observe(step < 0.6 * steps)
        rows = torch.randint(0, len(inputs), (64,), generator=generator)
        optimizer.zero_grad()
        logits = model(inputs[rows])
        loss = F.cross_entropy(logits, labels[rows])
        if teacher is not None:
            loss = 0.3 * loss + 0.7 * F.kl_div(logits.log_softmax(1), teacher[rows].softmax(1), reduction="batchmean")
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


def ai_edge_quantizer(float_file: Path, calibration: np.ndarray, folder: Path) -> Path:
    from ai_edge_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(float_file), recipe.static_wi8_ai8())
    samples = [{"input": image[None].transpose(0, 2, 3, 1)} for image in calibration]
    found = tool.calibrate({"serving_default": samples}, num_threads=1)
    path = folder / "ai_edge_quantizer.tflite"
    path.write_bytes(tool.quantize(found).quantized_model)
    return path


def onnxruntime_static(float_file: Path, calibration: np.ndarray, folder: Path) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.samples, None)
            return None if image is None else {"input": image[None]}

    path = folder / "onnxruntime.onnx"
    quantize_static(
        str(float_file),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return path


def measure(case: str, seed: int, task: Task) -> dict[str, Any]:
    _, factory, shape, steps = CASES[case]
    inputs = torch.from_numpy(student_inputs(task.train.inputs, shape))
    labels = torch.from_numpy(task.train.labels.astype("int64"))
    held_back = torch.from_numpy(student_inputs(task.validation.inputs[evenly(len(task.validation), 512)], shape))
    decide = evenly(len(task.validation), TEST_INPUTS)
    deciding_inputs = torch.from_numpy(student_inputs(task.validation.inputs[decide], shape))
    deciding_labels = torch.from_numpy(task.validation.labels[decide].astype("int64"))
    rows = evenly(len(task.test), TEST_INPUTS)
    test, truth = student_inputs(task.test.inputs[rows], shape), task.test.labels[rows]
    torch.manual_seed(seed)
    model = factory()
    fit(model, inputs, labels, steps, 3e-3, None)
    calibration = inputs[evenly(len(inputs), CALIBRATION_INPUTS)]
    batches = torch.split(calibration, 64)
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files: dict[str, Path] = {}

        def write(kind: str, network_of: nn.Module) -> None:
            assert isinstance(network_of, QuantizedModel)
            for suffix in ("tflite", "onnx"):
                files[f"{kind}.{suffix}"] = folder / f"{kind}.{suffix}"
                write_network(network_of.network(), files[f"{kind}.{suffix}"])

        write("fp32", quantize_model(model, inputs[:1], "fp32"))
        plain = quantize_model(model, inputs[:1])
        calibrate(plain, batches, "ema")
        write("calibrated", plain.eval())
        started = time.process_time()
        found = post_training_quantize(model, "wi8_ai8", batches, held_back)
        seconds["ptq"] = time.process_time() - started
        write("ptq", found.model)
        with torch.no_grad():
            teacher = torch.cat([model(batch) for batch in torch.split(inputs, 256)])
        tried = {"ptq": found.model}
        for kind in ("qat", "qat-learned"):
            started = time.process_time()
            trained = tried[kind] = quantize_model(model, inputs[:1])
            trained.load_state_dict(found.model.state_dict())
            if kind == "qat-learned":
                learn_steps(trained)
            fit(trained, inputs, labels, QAT_STEPS, 5e-4, teacher)
            settle_steps(trained)
            trained.freeze()
            seconds[kind] = time.process_time() - started
            write(kind, trained)
        kept = best_on(tried, deciding_inputs, deciding_labels)
        for tool, source, run in (
            ("ai-edge-quantizer", "fp32.tflite", ai_edge_quantizer),
            ("onnxruntime", "fp32.onnx", onnxruntime_static),
        ):
            started = time.process_time()
            files[tool] = run(files[source], calibration.numpy(), folder)
            seconds[tool] = time.process_time() - started
        accuracy = {
            kind: float(np.mean(run_model(path, test, kernels(path)).argmax(1) == truth))
            for kind, path in files.items()
        }
        accuracy["kept.tflite"] = accuracy[f"{kept}.tflite"]
    return {
        "case": case,
        "seed": seed,
        "steps": steps,
        "test_inputs": len(test),
        "accuracy": accuracy,
        "cpu_s": {kind: round(value, 1) for kind, value in seconds.items()},
        "kept": kept,
        "observer": found.observer,
        "equalized": found.equalized,
        "bias_corrected": found.bias_corrected,
        "divergence_nats": found.divergence,
    }


@torch.no_grad()
def best_on(models: dict[str, QuantizedModel], inputs: Tensor, labels: Tensor) -> str:
    """The first of those that get most of these right: what `edgekd quantize` does on the validation split."""
    right = {
        name: int((torch.cat([model.eval()(batch) for batch in torch.split(inputs, 256)]).argmax(1) == labels).sum())
        for name, model in models.items()
    }
    return max(right, key=lambda name: right[name])


def kernels(path: Path) -> Any:
    return "exact" if path.suffix == ".onnx" else "deployed"


def rows() -> list[dict[str, Any]]:
    """The last row of each case and seed."""
    found = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    return list({(row["case"], row["seed"]): row for row in found}.values())


def measured(row: dict[str, Any], *columns: str) -> bool:
    return all(f"{column}.tflite" in row["accuracy"] or column in row["accuracy"] for column in columns)


def value(row: dict[str, Any], column: str) -> float:
    return 100 * float(row["accuracy"].get(f"{column}.tflite", row["accuracy"].get(column)))


def paired(chosen: list[dict[str, Any]], left: str, right: str) -> str:
    """Mean difference of two columns, with its 95 % interval (Student's t over the paired seeds) and their number."""
    differences = [value(row, left) - value(row, right) for row in chosen if measured(row, left, right)]
    if not differences:
        return ""
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return f"{mean:+.2f}"
    quantile = float(scipy.stats.t.ppf(0.975, len(differences) - 1))
    half = quantile * statistics.stdev(differences) / len(differences) ** 0.5
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}] ({len(differences)})"


def table() -> None:
    cases = {case: [row for row in rows() if row["case"] == case] for case in CASES}
    print("| network | seeds | " + " | ".join(COLUMNS) + " |\n|" + " --- |" * (len(COLUMNS) + 2))
    for case, chosen in cases.items():
        cells = []
        for column in COLUMNS:
            values = [value(row, column) for row in chosen if measured(row, column)]
            few = f" ({len(values)})" if len(values) < len(chosen) else ""
            cells.append(f"{statistics.mean(values):.2f}{few}" if values else "")
        print(f"| {case} | {len(chosen)} | {' | '.join(cells)} |")
    print("\n| less | " + " | ".join(cases) + " |\n|" + " --- |" * (1 + len(cases)))
    for left, right in PAIRS:
        print(f"| {left} less {right} | " + " | ".join(paired(chosen, left, right) for chosen in cases.values()) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--case", choices=CASES, action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tasks = {name: load_task(name, {}) for name in {CASES[case][0] for case in arguments.case or CASES}}
    for seed in range(arguments.seeds):
        for case in arguments.case or CASES:
            if any((row["case"], row["seed"]) == (case, seed) and measured(row, *COLUMNS) for row in rows()):
                continue
            row = measure(case, seed, tasks[CASES[case][0]])
            with ROWS.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    table()


if __name__ == "__main__":
    main()
