"""Reads the job, does it, reports."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from .clocks import GUARD_OPTION, PinnedClocks, restore_leftovers, run_guard
from .gpu_memory import GpuMemory
from .lifeline import answer_clock, hold, read_job_line
from .sampler import SAMPLER_OPTION, run_sampler
from .state import read_facts
from .tensorrt import tensorrt_pass
from .wire import AgentError, Wire, private_stdout

PACKAGES = {"tflite": ("ai-edge-litert", "tflite-runtime"), "onnx": ("onnxruntime", "onnxruntime-gpu")}


def main(arguments: list[str]) -> int:
    """Entry of the zip application."""
    if arguments[:1] == [SAMPLER_OPTION]:
        return run_sampler()
    if arguments[:1] == [GUARD_OPTION]:
        return run_guard(Path(arguments[1]))
    began = time.perf_counter_ns()
    wire = Wire(private_stdout())
    if arguments[:1] == ["--site"]:
        sys.path.insert(0, arguments[1])
    try:
        job = json.loads(read_job_line(0))
        hold(wire, 0, float(job["deadline_s"]), watch=job["job"] != "clock")
        _do(job, wire, began)
    except AgentError as error:
        wire.send_error(error.code, str(error))
        return 1
    except MemoryError as error:
        wire.send_error("memory", f"out of memory: {error}")
        return 1
    wire.send("end")
    return 0


def _do(job: dict[str, Any], wire: Wire, began: int) -> None:
    sysfs = Path(job.get("sysfs") or "/sys")
    if job["job"] == "facts":
        restore_leftovers(sysfs)
        wire.send("facts", **read_facts(sysfs))
        return
    if job["job"] == "clock":
        answer_clock(wire, 0)
        return
    _check_model(Path(job["model"]), job["model_sha256"])
    run = tensorrt_pass if job["runtime"] == "tensorrt" else _run
    clocks = PinnedClocks(sysfs, job["threads"], wire) if job.get("pin_clocks") else None
    try:
        run(job, wire, sysfs)
    finally:
        if clocks is not None:
            clocks.release()


def _run(job: dict[str, Any], wire: Wire, sysfs: Path) -> None:
    # numpy comes with the runtime's site directory, so nothing that needs it is imported before.
    from . import energy, passes, profiling, runtimes, timing

    imported_began = time.perf_counter_ns()
    module = runtimes.import_runtime(job["runtime"])
    after_import, gpu = passes.status_text(), GpuMemory(sysfs, os.getpid())
    load_began = time.perf_counter_ns()
    options = runtimes.LoadOptions(
        threads=job["threads"],
        spinning=job["job"] != "energy",
        exact=bool(job.get("exact")),
        profile_prefix=profiling.profile_prefix() if job["job"] in ("profile", "provider") else None,
        provider=job.get("provider"),
    )
    model = runtimes.load(module, job["runtime"], job["model"], options)
    loaded = time.perf_counter_ns()
    wire.send(
        "loaded",
        provider=model.provider,
        settings=model.settings,
        runtime_version=_version(job["runtime"]),
        inputs=[{"name": spec.name, "shape": list(spec.shape), "dtype": str(spec.dtype)} for spec in model.specs],
    )
    if job["job"] == "memory":
        passes.memory_pass(model, job, after_import, gpu, wire)
    elif job["job"] == "accuracy":
        passes.accuracy_pass(model, job, wire)
    elif job["job"] == "energy":
        energy.energy_pass(job, model, wire, sysfs)
    elif job["job"] == "profile":
        profiling.profile_pass(job, model, wire)
    elif job["job"] == "provider":
        profiling.provider_pass(job, model)
    elif job["job"] == "end_to_end":
        passes.end_to_end_pass(model, job, wire)
    elif job["job"] == "latency":
        first, _ = passes.feed_sets(job, model, most=1)
        model.feed(first[0])
        invoke_began = time.perf_counter_ns()
        model.invoke()
        first_ns = time.perf_counter_ns() - invoke_began
        import_ns = load_began - imported_began
        wire.send("cold_start", import_ns=import_ns, load_ns=loaded - load_began, first_invoke_ns=first_ns)
        timing.latency_pass(job, model, wire, sysfs)
    else:
        raise AgentError("job", f"unknown job '{job['job']}'")


def _check_model(path: Path, expected: str) -> None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
    except OSError as error:
        raise AgentError("model_file", f"{path} cannot be read: {error.strerror}") from error
    if digest.hexdigest() != expected:
        raise AgentError("model_hash", f"{path} has sha256 {digest.hexdigest()}, not {expected}")


def _version(runtime: str) -> str:
    for package in PACKAGES[runtime]:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
