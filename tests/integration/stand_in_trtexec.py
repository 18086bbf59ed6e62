"""A stand-in for TensorRT's trtexec: the documented options and file formats, and honest nonsense inside.

Its engine holds the ONNX file, which onnxruntime runs where outputs are asked for; its times are made up. What it
writes follows NVIDIA/TensorRT's samples/common/sampleReporting.cpp and the logs of trtexec 8.5 and 10.3. It says
nothing about TensorRT itself. TRT_* variables make it fail.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

VERSION = os.environ.get("TRT_VERSION", "v100300] [b30")
MODERN = not VERSION.startswith("v8")
MAGIC = b"stand-in engine "
OPTIONS = {
    *("--help", "--onnx", "--saveEngine", "--loadEngine", "--fp16", "--int8", "--iterations", "--duration"),
    *("--warmUp", "--avgRuns", "--exportTimes", "--exportOutput", "--exportProfile", "--loadInputs"),
    "--skipInference" if MODERN else "--buildOnly",
}


def say(text, level="I"):
    sys.stdout.write(f"[11/22/2026-10:00:00] [{level}] {text}\n")
    sys.stdout.flush()


def fail(text):
    say(text, "E")
    sys.stdout.write(f"&&&& FAILED TensorRT.trtexec [TensorRT {VERSION}] # trtexec\n")
    sys.exit(1)


def build(options, onnx):
    content = onnx.read_bytes()
    kinds = " ".join(sorted(name for name in ("--fp16", "--int8") if name in options))
    # A rebuild may pick other kernels: the bytes differ each time, as TensorRT's do.
    header = f"{VERSION}|{kinds}|{time.time_ns()}\n".encode()
    if os.environ.get("TRT_BUILD") == "fails":
        fail("ModelImporter.cpp:828: ERROR: stand-in refuses the graph")
    if os.environ.get("TRT_BUILD") != "saves nothing":
        Path(options["--saveEngine"]).write_bytes(MAGIC + header + content)
    say("Engine built in 0.2 sec.")


def load(engine):
    data = engine.read_bytes()
    if not data.startswith(MAGIC):
        fail("Error Code 1: Serialization (magicTag matching failed)")
    header, _, onnx = data[len(MAGIC) :].partition(b"\n")
    version = header.decode().split("|")[0]
    if version != VERSION:
        fail(f"The engine plan file is not compatible with this version of TensorRT, expecting {VERSION} got {version}")
    say("Engine deserialized in 0.01 sec.")
    return onnx


def trace(warm_up_ms, seconds, iterations):
    runs = max(iterations, int(seconds * 1e3 / 2))
    found = []
    for index in range(runs + (0 if MODERN else 5)):
        # Before 8.5 the warm-up's runs are exported too.
        start = warm_up_ms + 2.0 * (index - (0 if MODERN else 5))
        h2d, compute, d2h = 0.0125, 1.5 + 0.001 * (index % 7), 0.0075
        values = {
            "startEnqMs": start - 0.05,
            "endEnqMs": start,
            "startH2dMs": start,
            "endH2dMs": start + h2d,
            "startComputeMs": start + h2d,
            "endComputeMs": start + h2d + compute,
            "startD2hMs": start + h2d + compute,
            "endD2hMs": start + h2d + compute + d2h,
            "h2dMs": h2d,
            "computeMs": compute,
            "d2hMs": d2h,
            "latencyMs": h2d + compute + d2h,
        }
        if not MODERN:
            values["endToEndMs"] = values["latencyMs"] + 0.001
        found.append("{ " + ", ".join(f'"{name}" : {value:.6g}' for name, value in values.items()) + " }")
    return "[\n  " + "\n, ".join(found) + "\n]\n"


def export_output(onnx, inputs, path):
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (spec,) = session.get_inputs()
    name, _, file = inputs.partition(":")
    if name != spec.name:
        fail(f'Cannot find input tensor with name "{name}" in the engine bindings!')
    data = np.fromfile(file, np.float32).reshape(spec.shape)
    (values,) = session.run(None, {name: data})
    if os.environ.get("TRT_OUTPUT") == "nan":
        values = values * np.nan
    text = ", ".join(f"{value:.6g}" for value in values.ravel())
    shape = "x".join(map(str, values.shape))
    path.write_text(f'[\n  {{ "name" : "out"\n  , "dimensions" : "{shape}"\n  , "values" : [ {text} ]\n  }}\n]\n')


def main():
    sys.stdout.write(f"&&&& RUNNING TensorRT.trtexec [TensorRT {VERSION}] # trtexec {' '.join(sys.argv[1:])}\n")
    options = {}
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        if name not in OPTIONS:
            fail(f"Unknown option: {name} {value}")
        options[name] = value
    if "--help" in options:
        for name in sorted(OPTIONS):
            sys.stdout.write(f"  {name}   as documented\n")
        return
    if calls := os.environ.get("TRT_CALLS"):
        with Path(calls).open("a") as file:
            file.write(" ".join(sys.argv[1:]) + "\n")
    if "--onnx" in options:
        build(options, Path(options["--onnx"]))
        return
    onnx = load(Path(options["--loadEngine"]))
    if {"--skipInference", "--buildOnly"} & set(options):
        return
    say("Starting inference")
    if os.environ.get("TRT_RUN") == "hangs":
        time.sleep(600)
    seconds = float(options.get("--duration", 3))
    time.sleep(seconds)
    if "--exportTimes" in options:
        times = trace(float(options.get("--warmUp", 200)), seconds, int(options.get("--iterations", 10)))
        if os.environ.get("TRT_TIMES") == "not numbers":
            times = times.replace('"latencyMs" : ', '"latencyMs" : null, "x" : ')
        Path(options["--exportTimes"]).write_text(times)
    if "--exportOutput" in options:
        export_output(onnx, options["--loadInputs"], Path(options["--exportOutput"]))
    if "--exportProfile" in options:
        Path(options["--exportProfile"]).write_text(
            '[\n  { "count" : 50 }\n'
            ', { "name" : "conv + relu", "timeMs" : 60, "averageMs" : 1.2, "medianMs" : 1.2, "percentage" : 80 }\n'
            ', { "name" : "gemm", "timeMs" : 15, "averageMs" : 0.3, "medianMs" : 0.3, "percentage" : 20 }\n]\n'
        )
    say("=== Performance summary ===")
    sys.stdout.write(f"&&&& PASSED TensorRT.trtexec [TensorRT {VERSION}] # trtexec\n")


if __name__ == "__main__":
    main()
