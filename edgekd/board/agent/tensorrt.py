"""The passes of a TensorRT engine, each by fresh processes of `trtexec`. Needs neither numpy nor TensorRT's Python."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
import time
from pathlib import Path
from typing import Any

from .gpu_memory import GpuMemory
from .state import read_state, read_text
from .trtexec import Run, layer_times, output_values, read_result, run_trtexec, timed_runs, work_folder
from .wire import AgentError, Wire

ENGINES_KEPT = 4
SAMPLES_A_LINE = 1000
OUTPUT_BYTES_A_LINE = 12_000
LAYERS = 1000
STATE_EVERY_NS = 1_000_000_000
ESTIMATE_MARGIN = 1.25
MEMORY_SECONDS = 1


def tensorrt_pass(job: dict[str, Any], wire: Wire, sysfs: Path) -> None:
    """Do one job with trtexec."""
    passes = {
        "engine": _engine_pass,
        "latency": _latency_pass,
        "memory": _memory_pass,
        "accuracy": _accuracy_pass,
        "profile": _profile_pass,
    }
    if job["job"] not in passes:
        raise AgentError("job", f"trtexec has no pass '{job['job']}'")
    if job["job"] != "engine":
        wire.send(
            "loaded",
            provider="TensorRT on the GPU",
            settings={"streams": 1, "data transfers": True, "CUDA graph": False, "spin wait": False},
            runtime_version=job["version"],
            inputs=[],
        )
    with work_folder(Path(job["engines"])) as folder:
        passes[job["job"]](job, wire, sysfs, folder)


def _engine_pass(job: dict[str, Any], wire: Wire, sysfs: Path, folder: Path) -> None:
    """The engine for an ONNX file: the one that is there if it still loads, else a new one."""
    engines, key = Path(job["engines"]), job["key"]
    plan, about = engines / f"{key}.plan", engines / f"{key}.json"
    found, why = _cached(job, plan, about)
    if found is None:
        wire.send("progress", runs=0, timed_ns=0)
        partial = folder / "building.plan"
        run = run_trtexec(
            job["trtexec"],
            [f"--onnx={job['model']}", f"--saveEngine={partial}", *job["flags"], job["skip_inference"]],
        )
        if not partial.is_file() or not partial.stat().st_size:
            raise AgentError("trtexec", "trtexec ended well but saved no engine: is the disk full?")
        found = {
            "sha256": _sha256(partial),
            "size_bytes": partial.stat().st_size,
            "build_seconds": (run.ended_ns - run.began_ns) / 1e9,
        }
        partial.replace(plan)
        about.write_text(json.dumps(found))
        _keep_newest(engines, key)
    wire.send("engine", path=str(plan), built=bool(why), why=why, **found)


def _cached(job: dict[str, Any], plan: Path, about: Path) -> tuple[dict[str, Any] | None, str]:
    """What is known of an engine that is there and loads; else None and why it has to be built."""
    text = read_text(about)
    if text is None or not plan.is_file():
        return None, "there was none for this file, device and version"
    try:
        said = json.loads(text)
        found = {
            "sha256": str(said["sha256"]),
            "size_bytes": int(said["size_bytes"]),
            "build_seconds": float(said["build_seconds"]),
        }
    except (ValueError, KeyError, TypeError):
        return None, "what was noted of the one there cannot be read"
    if _sha256(plan) != found["sha256"]:
        return None, "the one there is not what was built"
    try:
        run_trtexec(job["trtexec"], [f"--loadEngine={plan}", job["skip_inference"]])
    except AgentError as error:
        # TensorRT refuses engines of another version or device: only building anew helps.
        return None, f"the one there does not load: {error}"[:1000]
    plan.touch()
    return found, ""


def _keep_newest(engines: Path, key: str) -> None:
    plans = sorted(engines.glob("*.plan"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in [path for path in plans if path.stem != key][ENGINES_KEPT - 1 :]:
        old.unlink(missing_ok=True)
        old.with_suffix(".json").unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _load(job: dict[str, Any], *, first_input: bool = True) -> list[str]:
    """The options that name the engine, and the input of every pass but that over all inputs."""
    inputs = [f"--loadInputs={job['input_name']}:{job['input_files'][0]}"] if first_input and job["input_files"] else []
    return [f"--loadEngine={job['model']}", *inputs]


def _latency_pass(job: dict[str, Any], wire: Wire, sysfs: Path, folder: Path) -> None:
    """Let trtexec time this process's share of runs and seconds, and hand over its samples."""
    times = folder / "times.json"
    warm_up_ms = max(1, round(job["warmup_seconds"] * 1e3))
    seconds = max(1, math.ceil(min(job["min_seconds"], job["max_seconds"])))
    last_state = time.perf_counter_ns()
    wire.send("state", **read_state(sysfs))

    def look(_: int) -> None:
        nonlocal last_state
        if time.perf_counter_ns() - last_state >= STATE_EVERY_NS:
            wire.send("state", **read_state(sysfs))
            last_state = time.perf_counter_ns()

    run = run_trtexec(
        job["trtexec"],
        [
            *_load(job),
            f"--iterations={job['min_runs']}",
            f"--duration={seconds}",
            f"--warmUp={warm_up_ms}",
            f"--exportTimes={times}",
        ],
        look,
    )
    runs = timed_runs(read_result(times), warm_up_ms)
    begun, ended = runs[0][0], runs[-1][2]
    timed_ns = max(1, int((ended - begun) * 1e6))
    stride = job["stride"] or max(
        1,
        math.ceil(
            max(job["plan_runs"], ESTIMATE_MARGIN * job["plan_seconds"] * 1e9 / timed_ns * len(runs)) / job["keep"]
        ),
    )
    wire.send("cold_start", import_ns=0, load_ns=run.inference_ns - run.began_ns, first_invoke_ns=0)
    inputs_from = f"first of {len(job['input_files'])} stored" if job["input_files"] else "trtexec's own random ones"
    fastest = int(min(latency for _, latency, _ in runs) * 1e6)
    wire.send("warm", runs=0, fastest_ns=fastest, stride=stride, inputs=1, inputs_from=inputs_from)
    _send_samples(wire, runs[::stride][: job["keep"]], run, ended)
    wire.send("progress", runs=len(runs), timed_ns=timed_ns)
    wire.send("state", **read_state(sysfs))
    # No word on interruptions by others: the samples are of the GPU's own clock, and who else used it is not known.
    wire.send("timed", runs=len(runs), timed_ns=timed_ns)


def _send_samples(wire: Wire, runs: list[tuple[float, float, float]], run: Run, ended_ms: float) -> None:
    """Samples with starts on this process's clock: trtexec's own begins somewhere, and its last run ends at its end."""
    origin_ns = run.ended_ns - int(ended_ms * 1e6)
    for first in range(0, len(runs), SAMPLES_A_LINE):
        part = runs[first : first + SAMPLES_A_LINE]
        wire.send(
            "samples",
            start_ns=[max(0, origin_ns + int(start * 1e6)) for start, _, _ in part],
            duration_ns=[int(latency * 1e6) for _, latency, _ in part],
        )


def _memory_pass(job: dict[str, Any], wire: Wire, sysfs: Path, folder: Path) -> None:
    """Peak resident memory of trtexec as a whole, and on a Jetson what the GPU holds for it."""
    gpu, peak = GpuMemory(sysfs), ""

    def look(process: int) -> None:
        nonlocal peak
        # One that has just ended still has a status, but no memory in it.
        text = read_text(Path(f"/proc/{process}/status")) or ""
        peak = text if "VmHWM" in text else peak
        gpu.look(process)

    run_trtexec(job["trtexec"], [*_load(job), "--iterations=16", f"--duration={MEMORY_SECONDS}", "--warmUp=0"], look)
    wire.send("memory", after_import="", at_end=peak, **gpu.found())


def _accuracy_pass(job: dict[str, Any], wire: Wire, sysfs: Path, folder: Path) -> None:
    """Predict stored inputs, one process of trtexec each, until they or the time are used up."""
    labels, out = job["labels"], folder / "output.json"
    digest, kept = hashlib.sha256(), bytearray()
    predictions: list[int] = []
    ends = time.monotonic() + job["seconds"]
    for file in job["input_files"]:
        if predictions and time.monotonic() > ends:
            break
        single = ["--iterations=1", "--duration=0", "--warmUp=0", "--avgRuns=1"]
        loads = [*_load(job, first_input=False), f"--loadInputs={job['input_name']}:{file}"]
        run_trtexec(job["trtexec"], [*loads, *single, f"--exportOutput={out}"])
        values = output_values(read_result(out))
        data = struct.pack(f"<{len(values)}f", *values)
        out.unlink()
        digest.update(data)
        kept += data
        predictions.append(max(range(len(values)), key=values.__getitem__))
        wire.send("progress", runs=len(predictions), timed_ns=0)
    done = len(predictions)
    right = None if labels is None else [bool(predictions[i] == labels[i]) for i in range(done)]
    wire.send("predictions", first=0, predictions=predictions, correct=right)
    for first in range(0, len(kept), OUTPUT_BYTES_A_LINE):
        part = base64.b64encode(kept[first : first + OUTPUT_BYTES_A_LINE]).decode()
        wire.send("outputs", rows=done, dtype="float32", data=part)
    wire.send("accuracy", inputs=done, outputs_sha256=digest.hexdigest())


def _profile_pass(job: dict[str, Any], wire: Wire, sysfs: Path, folder: Path) -> None:
    """Time per layer, from a run of its own."""
    profile = folder / "profile.json"
    run_trtexec(job["trtexec"], [*_load(job), "--iterations=50", "--duration=1", f"--exportProfile={profile}"])
    layers = layer_times(read_result(profile))
    wire.send("operators", operators=layers[:LAYERS], runs=max((layer["runs"] for layer in layers), default=0))
