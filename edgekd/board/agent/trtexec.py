"""Runs TensorRT's own `trtexec`, and reads what it writes.

Options and formats are those of NVIDIA/TensorRT's samples/common/{sampleOptions,sampleReporting}.cpp, from TensorRT 8
(JetPack 5) to 10 (JetPack 6): `--exportTimes` is a JSON list with one object a timed run, `--exportOutput` one with an
object an output tensor, `--exportProfile` one with an object a layer behind a first one that counts the iterations.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .wire import AgentError

LOG_LIMIT = 200_000
STARTING = "Starting inference"
POLL_S = 0.05
_DIE_WITH_PARENT = 1
_LIBC = ctypes.CDLL(None)


@dataclass
class Run:
    """One run of trtexec that ended well, in ns on this process's clock.

    `inference_ns` is when it began to infer, after CUDA was set up and the engine loaded.
    """

    log: str
    began_ns: int
    inference_ns: int
    ended_ns: int


def _die_with_parent() -> None:
    # Whatever ends this process, SIGKILL included, ends trtexec too.
    _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def run_trtexec(program: str, arguments: list[str], on_poll: Callable[[int], None] | None = None) -> Run:
    """Run it to its end; `on_poll` is given its process id now and then.

    Raises:
        AgentError: it cannot be started, or ended with another exit code than 0; with what it said of it.
    """
    began = time.perf_counter_ns()
    try:
        process = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,
        )
    except OSError as error:
        raise AgentError("trtexec", f"{program} cannot be started: {error.strerror}") from error
    log, inference_ns = bytearray(), 0
    assert process.stdout is not None
    with process, process.stdout as output:
        while True:
            ready, _, _ = select.select([output], [], [], POLL_S)
            chunk = os.read(output.fileno(), 65536) if ready else None
            if chunk == b"":
                break
            log += chunk or b""
            if not inference_ns and STARTING.encode() in log:
                inference_ns = time.perf_counter_ns()
            if len(log) > LOG_LIMIT:
                del log[: LOG_LIMIT // 2]
            if on_poll is not None:
                on_poll(process.pid)
        code = process.wait()
    text = log.decode("utf-8", errors="replace")
    ended = time.perf_counter_ns()
    if code:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise AgentError("trtexec", f"{program} {' '.join(arguments)} {how}: {complaint(text)}")
    return Run(text, began, inference_ns or ended, ended)


def complaint(log: str) -> str:
    """What trtexec says of its failure: its first lines of severity error, else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.partition("[E]")[2].strip() for line in lines if "[E]" in line]
    return "; ".join(errors[:4])[:1200] or (lines[-1][:400] if lines else "it said nothing")


def timed_runs(text: str, warm_up_ms: float) -> list[tuple[float, float, float]]:
    """Start, latency and end in ms of each timed run, in order, from `--exportTimes`.

    The latency is trtexec's own: host-to-device transfer, GPU time and device-to-host transfer of one run. Before
    TensorRT 8.5 the warm-up's runs are in the file too; trtexec knows them by when they began to compute.

    Raises:
        AgentError: the text is not of that form.
    """
    found = []
    for entry in _entries(text, "--exportTimes"):
        start, compute, latency, end = (
            _number(entry, name) for name in ("startH2dMs", "startComputeMs", "latencyMs", "endD2hMs")
        )
        if compute >= warm_up_ms:
            found.append((start, latency, max(end, start)))
    if not found:
        raise AgentError("trtexec", "the file of --exportTimes holds no timed run")
    return found


def output_values(text: str) -> list[float]:
    """The values of the first output tensor from `--exportOutput`, as printed: six significant digits.

    Raises:
        AgentError: the text is not of that form, or a value is not finite.
    """
    entries = _entries(text, "--exportOutput")
    values = entries[0].get("values") if entries else None
    if not isinstance(values, list) or not values:
        raise AgentError("trtexec", "the file of --exportOutput holds no output values")
    return [_number({"value": value}, "value") for value in values]


def layer_times(text: str) -> list[dict[str, Any]]:
    """The mean time of each layer from `--exportProfile`, in the order of the engine.

    Raises:
        AgentError: the text is not of that form.
    """
    entries = _entries(text, "--exportProfile")
    runs = int(_number(entries[0], "count")) if entries else 0
    return [
        {
            "name": str(entry.get("name", ""))[:200],
            "kind": "layer",
            "mean_us": max(0.0, _number(entry, "averageMs") * 1e3),
            "runs": runs,
        }
        for entry in entries[1:]
    ]


def _entries(text: str, option: str) -> list[dict[str, Any]]:
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise AgentError("trtexec", f"the file of {option} is not JSON: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AgentError("trtexec", f"the file of {option} is not a list of objects")
    return entries


def _number(entry: dict[str, Any], name: str) -> float:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise AgentError("trtexec", f"trtexec wrote '{str(value)[:40]}' for {name}: no finite number")
    return float(value)


@contextlib.contextmanager
def work_folder(engines: Path) -> Iterator[Path]:
    """A folder for what trtexec writes, beside the engines; those of processes that are gone are removed."""
    engines.mkdir(parents=True, exist_ok=True)
    for old in engines.glob(".run-*"):
        if not Path(f"/proc/{old.name[5:]}").exists():
            _remove(old)
    folder = engines / f".run-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink(missing_ok=True)
    folder.rmdir()


def read_result(path: Path) -> str:
    """What trtexec wrote.

    Raises:
        AgentError: it wrote nothing there.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise AgentError("trtexec", f"trtexec ended well but wrote no {path.name}: {error.strerror}") from error
