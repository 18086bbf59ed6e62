"""The passes that are not timed: memory, accuracy; and the inputs that all passes share."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from .gpu_memory import GpuMemory
from .inputs import for_model, layout_of, random_arrays, stored_labels, stored_rows
from .runtimes import Model
from .state import read_text
from .wire import AgentError, Wire

HELD_BYTES = 64 * 2**20
RANDOM_SETS = 16
MEMORY_RUNS = 16
LABELS_A_LINE = 500
OUTPUT_BYTES_A_LINE = 12_000
OUTPUT_BYTES = 2**20
END_TO_END_ROWS = 256
END_TO_END_RUNS = (64, 1000)
END_TO_END_SECONDS = 3.0


def _stored_for(job: dict[str, Any], model: Model) -> tuple[int, Any]:
    """How many stored inputs there are, and an iterator over them as the model takes them."""
    if len(model.specs) != 1:
        raise AgentError("inputs", f"the model has {len(model.specs)} inputs; stored inputs feed exactly one")
    spec = model.specs[0]
    shape, rows = stored_rows(Path(job["inputs"]), "inputs")
    if not shape[0]:
        raise AgentError("inputs", f"{job['inputs']} holds no inputs")
    layout = layout_of(spec, tuple(shape[1:]), model.prefers_nhwc)
    return shape[0], (for_model(row, spec, layout) for row in rows)


def feed_sets(job: dict[str, Any], model: Model, most: int | None = None) -> tuple[list[list[np.ndarray]], str]:
    """Inputs ready to feed: as many stored ones as fit in HELD_BYTES, or random ones; and where they came from."""
    if job["inputs"] is None:
        return random_arrays(model.specs, min(most or RANDOM_SETS, RANDOM_SETS), job["seed"]), "random"
    total, arrays = _stored_for(job, model)
    sets: list[list[np.ndarray]] = []
    held = 0
    for array in arrays:
        held += array.nbytes
        if sets and (held > HELD_BYTES or len(sets) == most):
            break
        sets.append([array])
    return sets, f"first {len(sets)} of {total} stored"


def memory_pass(model: Model, job: dict[str, Any], after_import: str, gpu: GpuMemory, wire: Wire) -> None:
    """Run a few inferences and report the kernel's account of this process, which did nothing else."""
    sets, _ = feed_sets(job, model, most=1)
    for _ in range(MEMORY_RUNS):
        model.feed(sets[0])
        model.invoke()
        model.outputs()
    gpu.look(os.getpid())
    wire.send("memory", after_import=after_import, at_end=status_text(), **gpu.found())


def status_text() -> str:
    """/proc/self/status: the resident memory now and at its peak."""
    text = read_text(Path("/proc/self/status"))
    if text is None:
        raise AgentError("memory", "/proc/self/status cannot be read on this board")
    return text


def accuracy_pass(model: Model, job: dict[str, Any], wire: Wire) -> None:
    """Predict every stored input, and say which were right where labels are stored too."""
    total, arrays = _stored_for(job, model)
    labels = stored_labels(Path(job["inputs"]))
    if labels is not None and len(labels) != total:
        raise AgentError("inputs", f"{job['inputs']} has {total} inputs but {len(labels)} labels")
    digest = hashlib.sha256()
    predictions: list[int] = []
    kept = bytearray()
    kept_rows, dtype = 0, ""
    for array in arrays:
        model.feed([array])
        model.invoke()
        output = model.outputs()[0]
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            raise AgentError("model", f"the output for input {len(predictions)} is not finite")
        data = np.ascontiguousarray(output).tobytes()
        digest.update(data)
        if len(kept) + len(data) <= OUTPUT_BYTES:
            kept += data
            kept_rows, dtype = kept_rows + 1, str(output.dtype)
        predictions.append(int(np.argmax(output.reshape(-1))))
    for first in range(0, total, LABELS_A_LINE):
        part = predictions[first : first + LABELS_A_LINE]
        right = None if labels is None else [int(part[i] == labels[first + i]) for i in range(len(part))]
        wire.send("predictions", first=first, predictions=part, correct=right)
    for first in range(0, len(kept), OUTPUT_BYTES_A_LINE):
        part64 = base64.b64encode(kept[first : first + OUTPUT_BYTES_A_LINE]).decode()
        wire.send("outputs", rows=kept_rows, dtype=dtype, data=part64)
    wire.send("accuracy", inputs=total, outputs_sha256=digest.hexdigest())


def end_to_end_pass(model: Model, job: dict[str, Any], wire: Wire) -> None:
    """Time from a stored float input to the predicted class: layout and quantization, invoke, reading the output."""
    shape, rows = stored_rows(Path(job["inputs"]), "inputs")
    spec = model.specs[0]
    layout = layout_of(spec, tuple(shape[1:]), model.prefers_nhwc)
    held = [np.array(row) for _, row in zip(range(END_TO_END_ROWS), rows)]  # noqa: B905 (the board's Python may be 3.9)
    least, most = END_TO_END_RUNS
    durations: list[int] = []
    clock = time.perf_counter_ns
    began = clock()
    position = -job["warmup_runs"]
    while position < most and (position < least or clock() - began < END_TO_END_SECONDS * 1e9):
        row = held[position % len(held)]
        started = clock()
        model.feed([for_model(row, spec, layout)])
        model.invoke()
        np.argmax(model.outputs()[0])
        took = clock() - started
        if position >= 0:
            durations.append(took)
        position += 1
    wire.send("end_to_end", duration_ns=durations)
