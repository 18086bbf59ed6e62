"""Which operators of a file a runtime does not accelerate: asked of the runtime, or by its documented rules."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekd.convert.graph import Graph
from edgekd.convert.onnxruntime_fusion import unfused_in_onnxruntime
from edgekd.convert.tensorrt_rules import refused_by_tensorrt
from edgekd.convert.typed import TypedNode, typed_nodes
from edgekd.convert.xnnpack import refused_by_xnnpack
from edgekd.errors import MissingExtraError
from edgekd.records import Accelerated, Finding, Format, InferenceRuntime

RUNTIMES: dict[Format, tuple[InferenceRuntime, ...]] = {
    "torch": (),
    "tflite": ("tflite",),
    "onnx": ("onnxruntime", "tensorrt"),
}
"""The runtimes that take each format."""
_TIMEOUT_S = 120.0
_MODULES: dict[InferenceRuntime, str] = {"tflite": "ai_edge_litert", "onnxruntime": "onnxruntime"}
"""The runtimes that can be asked."""
_QUOTED = 300
Problems = list[tuple[str, str]]
"""Nodes by name, each with what keeps the runtime from accelerating it."""
_RULES: dict[InferenceRuntime, Callable[[Graph, tuple[TypedNode, ...], dict[str, Any]], Problems]] = {
    "tflite": refused_by_xnnpack,
    "onnxruntime": unfused_in_onnxruntime,
    "tensorrt": refused_by_tensorrt,
}


def acceleration(graph: Graph, path: Path, runtime: InferenceRuntime) -> Accelerated:
    """What a runtime accelerates of a file, and what not.

    LiteRT and onnxruntime are asked: they load the file, on this machine's CPU, in a process of its own, and say what
    they made of it; no inference is run. TensorRT is judged by its documented rules.

    Args:
        graph: what was read from `path`.
        path: the file.
        runtime: one of `RUNTIMES` for the file's format.

    Returns:
        Findings are warnings: an honest file may still run slowly.

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    nodes = typed_nodes(graph)
    answer = _ask(runtime, path) if runtime in _MODULES else {}
    if "refused" in answer:
        problems = [("file", f"{runtime} does not load it: {answer['refused']}")]
    else:
        problems = _RULES[runtime](graph, nodes, answer)
    findings = tuple(Finding(node=node, problem=problem, severity="warning") for node, problem in problems)
    return Accelerated(
        runtime=runtime,
        version=answer.get("version"),
        basis="asked" if runtime in _MODULES else "rules",
        operators=sum(entry.numeric != "index" for entry in nodes),
        findings=findings,
    )


def _ask(runtime: InferenceRuntime, path: Path) -> dict[str, Any]:
    """What the runtime says of the file. It is native code, so it runs in a process that may crash or hang."""
    if importlib.util.find_spec(_MODULES[runtime]) is None:
        raise MissingExtraError(_MODULES[runtime], "fit")
    command = [sys.executable, "-m", "edgekd.convert.acceleration_probe", runtime, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"refused": f"it took longer than {_TIMEOUT_S:g} s"}
    if done.returncode < 0:
        return {"refused": f"it was killed by {signal.Signals(-done.returncode).name} while loading the file"}
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["without a word"]
        return {"refused": f"it ended with exit code {done.returncode}: {said[0][:_QUOTED]}"}
    answer: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    return answer
