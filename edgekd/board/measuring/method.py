"""How a measurement's figures came about, for whoever doubts or repeats them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.board.measuring.agent_archive import agent_sha256
from edgekd.board.measuring.timed_pass import TimedPass
from edgekd.board.provisioning.provision import RuntimeEnvironment
from edgekd.core.board_output import printable
from edgekd.records import MeasurementPlan
from edgekd.records.base import MeasuredRuntime

_CLOCK = {
    False: "time.perf_counter_ns (CLOCK_MONOTONIC)",
    True: "the GPU's events, by trtexec --exportTimes",
}
_TIMED_PART = {
    False: "invoke only: inputs are laid out, quantized and handed over before",
    True: "host-to-device transfer, GPU time and device-to-host transfer of one run, one stream; one input, repeated",
}
_PER_OPERATOR: Mapping[MeasuredRuntime, str] = {
    "onnx": "onnxruntime's profiler, in a pass of its own",
    "tflite": "not measured: LiteRT gives Python no time per operator",
    "tensorrt": "trtexec --exportProfile, in a run of its own: layers of the engine, several operators fused in one",
}


def method_of(
    environment: RuntimeEnvironment, plan: MeasurementPlan, timed: TimedPass, outputs_sha256: str | None, sysfs: str
) -> dict[str, Any]:
    """How the figures came about, for whoever doubts or repeats them."""
    assert timed.warm is not None and timed.loaded is not None
    return {
        "agent_sha256": agent_sha256(),
        "python": environment.python,
        "bundle": environment.site,
        "runtime_package": environment.runtime_package,
        "runtime_settings": timed.loaded.settings,
        "model_inputs": [line.model_dump(mode="json") for line in timed.loaded.inputs],
        "inputs_from": printable(timed.warm.inputs_from, 100),
        "inputs_cycled": timed.warm.inputs,
        "clock": _CLOCK[plan.runtime == "tensorrt"],
        "timed_part": _TIMED_PART[plan.runtime == "tensorrt"],
        "timed_seconds": timed.timed_ns / 1e9,
        "untimed_runs_after_each_pause": 1,
        "processes": len(set(timed.processes)),
        "pinned": timed.pinned.model_dump(mode="json", exclude={"kind"}) if timed.pinned else None,
        "per_operator": _PER_OPERATOR[plan.runtime],
        "end_to_end": "from a stored float32 input to the class: layout, quantization, invoke, argmax, in Python",
        "garbage_collector": "off in the timed pass",
        "cold_start_parts_ms": [
            {"import": line.import_ns / 1e6, "load": line.load_ns / 1e6, "first_invoke": line.first_invoke_ns / 1e6}
            for line in timed.cold_starts
        ],
        "outputs_sha256": outputs_sha256,
        "sysfs_root": sysfs,
    }
