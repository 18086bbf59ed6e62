"""Trains each network of the zoo briefly, converts it, and writes how far its forms agree to results/zoo.json.

    python -m benchmarks.quantization.run [--steps N] [--only WORD]

With `--only`, the networks whose name holds the word are measured again and the other rows are kept.

Images are fashion-mnist, signals watch-gestures; the agreement is over 500 test inputs that no training saw.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.quantization.zoo import ZOO
from edgekd.convert.audit import audit_file
from edgekd.convert.inference import run_model
from edgekd.convert.isolated import write_network
from edgekd.convert.parity import LADDER, measure_parity, torch_logits
from edgekd.errors import BuildError
from edgekd.nn.quantized.model import quantize_model
from edgekd.records import Scheme
from edgekd.tasks import Task, load_task

INPUTS = 500
RESULTS = Path(__file__).parent / "results"
EXTRA_PAIRS = (("torch", "tflite"),)


def train(model: nn.Module, inputs: Tensor, labels: Tensor, steps: int) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        rows = torch.randint(0, len(inputs), (64,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[rows]), labels[rows]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def tensors(task: Task, signal: bool) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
    """Training inputs and labels, and evenly spaced test inputs and labels."""
    rows = np.linspace(0, len(task.test.labels) - 1, INPUTS).astype(int)
    found = [torch.from_numpy(np.asarray(values)) for values in (task.train.inputs, task.test.inputs[rows])]
    train_inputs, test_inputs = (values.squeeze(2) if signal else values for values in found)
    return train_inputs, torch.from_numpy(task.train.labels.astype("int64")), test_inputs, task.test.labels[rows]


def measure(name: str, task: Task, steps: int, scheme: Scheme = "wi8_ai8") -> dict[str, Any]:
    factory, shape = ZOO[name]
    inputs, labels, held_out, truth = tensors(task, signal=len(shape) == 2)
    torch.manual_seed(0)
    model = factory()
    quantize_model(model, inputs, scheme)
    train(model, inputs, labels, steps)
    cpu = time.process_time()
    quantized = quantize_model(model, inputs, scheme)
    quantized.calibrate(inputs[start : start + 64] for start in range(0, 1024, 64))
    quantized.eval()
    network = quantized.network()
    images = (held_out.unsqueeze(2) if len(shape) == 2 else held_out).numpy()
    with tempfile.TemporaryDirectory() as folder:
        tflite, onnx, floating = Path(folder, "m.tflite"), Path(folder, "m.onnx"), Path(folder, "f.tflite")
        write_network(network, tflite)
        write_network(network, onnx)
        cpu = time.process_time() - cpu
        write_network(quantize_model(model, inputs, "fp32").network(), floating)
        audits = [audit_file(path, quantized.scheme) for path in (tflite, onnx)]
        rungs = measure_parity(quantized, tflite, onnx, held_out.numpy(), (*LADDER, *EXTRA_PAIRS), model)
        int8 = run_model(tflite, images)
        sizes = [path.stat().st_size for path in (tflite, onnx, floating)]
    return {
        "outcome": "converts" if quantized.scheme == "wi8_ai8" else "converts with operators in float",
        "scheme": quantized.scheme,
        "float_operators": [
            f"{step.place} ({quantized.layer(step).kind})"
            for step in quantized.steps
            if step.key in quantized.float_steps
        ],
        "parameters": network.parameters,
        "accuracy_fp32": float(np.mean(torch_logits(model, held_out.numpy()).argmax(1) == truth)),
        "accuracy_int8": float(np.mean(int8.argmax(1) == truth)),
        "honest": all(audit.honest for audit in audits),
        "findings": [finding.model_dump() for audit in audits for finding in audit.findings],
        "calibrate_and_convert_cpu_s": round(cpu, 2),
        "bytes": dict(zip(("tflite_int8", "onnx_int8", "tflite_fp32"), sizes, strict=True)),
        "rungs": [rung.model_dump(exclude_none=True) for rung in rungs],
    }


def by_leave(name: str, task: Task, steps: int, reason: str) -> dict[str, Any]:
    """What `--allow-float-ops` makes of a network that has no wi8_ai8, or the refusal that is left."""
    try:
        return {**measure(name, task, steps, "wi8_ai8_mixed"), "reason": reason}
    except BuildError as error:
        return {"outcome": "refused", "reason": str(error)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tasks = {3: load_task("fashion-mnist", {}), 2: load_task("watch-gestures", {})}
    rows: dict[str, Any] = {}
    for name, (_, shape) in ZOO.items():
        if arguments.only not in name:
            continue
        task = tasks[2] if shape[0] == 6 else tasks[3]
        try:
            rows[name] = measure(name, task, arguments.steps)
        except BuildError as error:
            rows[name] = by_leave(name, task, arguments.steps, str(error))
        print(name, json.dumps(rows[name])[:400], flush=True)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "zoo.json"
    if arguments.only and path.exists():
        rows = {**json.loads(path.read_text())["networks"], **rows}
    rows = {name: rows[name] for name in ZOO if name in rows}
    versions = {name: __import__(name).__version__ for name in ("torch", "onnxruntime", "numpy")}
    record = {"machine": platform.processor() or platform.machine(), "versions": versions, "steps": arguments.steps}
    path.write_text(json.dumps({**record, "inputs": INPUTS, "networks": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
