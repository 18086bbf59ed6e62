"""What quantization costs: a QAT step against a float step, and CPU seconds of converting; to results/cost.json.

    python -m benchmarks.quantization.cost

Steps of both kinds alternate in one process, so that a busy machine slows both alike; the ratio is of medians.
"""

from __future__ import annotations

import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.quantization.run import RESULTS
from edgekd.convert.random_student import write_random_student
from edgekd.convert.students import FileKey, convert_student
from edgekd.core.spaces import space_named
from edgekd.nn.quantized.model import quantize_model
from edgekd.nn.students import Student

STEPS = 40
NAMES: dict[FileKey, str] = {
    ("tflite", "wi8_ai8"): "student.tflite",
    ("onnx", "wi8_ai8"): "student.onnx",
    ("tflite", "fp32"): "student_fp32.tflite",
    ("onnx", "fp32"): "student_fp32.onnx",
}
CASES = (("inverted-residual", (1, 28, 28), 10), ("ds-cnn", (6, 1, 128), 7))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor) -> float:
    started = time.perf_counter()
    optimizer.zero_grad()
    F.cross_entropy(model(inputs), labels).backward()
    optimizer.step()
    return time.perf_counter() - started


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(space: str, native: tuple[int, int, int], classes: int, position: int) -> dict[str, Any]:
    choices = {name: values[position] for name, values in space_named(space).dimensions(native).items()}
    student = Student(space_named(space).architecture(choices, native, classes))
    inputs = torch.randn(64, *student.architecture.input_shape)
    labels = torch.randint(0, classes, (64,))
    quantized = quantize_model(student, inputs)
    models = {"float": student.train(), "qat": quantized.train()}
    optimizers = {name: torch.optim.Adam(model.parameters(), 1e-4) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(STEPS):
        for name, model in models.items():
            times[name].append(step(model, optimizers[name], inputs, labels))
    medians = {name: statistics.median(values[STEPS // 4 :]) for name, values in times.items()}
    with tempfile.TemporaryDirectory() as folder:
        before = cpu_seconds()
        convert_student(student, quantized.eval(), inputs[:1], Path(folder), NAMES)
        convert = cpu_seconds() - before
        before = time.process_time()
        for suffix in ("tflite", "onnx"):
            write_random_student(student, inputs[:1], Path(folder, f"random.{suffix}"))
        random = (time.process_time() - before) / 2
    return {
        "space": space,
        "choices": choices,
        "float_step_ms": round(1e3 * medians["float"], 2),
        "qat_step_ms": round(1e3 * medians["qat"], 2),
        "ratio": round(medians["qat"] / medians["float"], 2),
        "convert_four_files_cpu_s": round(convert, 2),
        "random_int8_file_cpu_s": round(random, 2),
    }


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [measure(*case, position) for case in CASES for position in (0, -1)]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cost.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
