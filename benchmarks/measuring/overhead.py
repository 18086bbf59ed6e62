"""The agent's own overhead: its median against that of the barest loop over the same runtime, interleaved.

Run: `python benchmarks/measuring/overhead.py [--rounds N] [--seconds S] [--out FILE]`. Both sides run in fresh
processes on one thread, in alternating order, over the same model and the same inputs. The bare loop is what one
writes in a minute: load, copy the input, `invoke` between two readings of the clock, nothing else. Where the runtime's
`benchmark_model` is on the PATH it is run too, for .tflite files.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

import numpy as np

from edgekd.board.connection.local import LocalSession
from edgekd.board.measuring.agent_client import Agent
from edgekd.board.measuring.timed_pass import timed_pass
from edgekd.core.statistics import student_t
from edgekd.records import MeasurementPlan

BARE = """
import sys, time
import numpy as np
path, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
clock = time.perf_counter_ns
if path.endswith(".tflite"):
    from ai_edge_litert.interpreter import Interpreter
    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    index, shape, dtype = detail["index"], detail["shape"], detail["dtype"]
    feed = lambda array: interpreter.set_tensor(index, array)
    invoke = interpreter.invoke
else:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    node = session.get_inputs()[0]
    shape = [n if isinstance(n, int) else 1 for n in node.shape]
    dtype = {"tensor(float)": np.float32, "tensor(int8)": np.int8, "tensor(uint8)": np.uint8}[node.type]
    binding = session.io_binding()
    for output in session.get_outputs():
        binding.bind_output(output.name)
    feed = lambda array: binding.bind_cpu_input(node.name, array)
    invoke = lambda: session.run_with_iobinding(binding)
generator = np.random.default_rng(seed)
if np.dtype(dtype).kind == "f":
    arrays = [generator.standard_normal(shape).astype(dtype) for _ in range(16)]
else:
    info = np.iinfo(dtype)
    arrays = [generator.integers(info.min, info.max, shape, endpoint=True).astype(dtype) for _ in range(16)]
end, n, durations = clock() + int(0.5e9), 0, []
while clock() < end:
    feed(arrays[n % 16]); invoke(); n += 1
end = clock() + int(seconds * 1e9)
while clock() < end:
    feed(arrays[n % 16])
    began = clock()
    invoke()
    durations.append(clock() - began)
    n += 1
print(float(np.median(durations)), len(durations))
"""


def bare_median_ns(model: Path, seconds: float) -> float:
    done = subprocess.run(
        [sys.executable, "-I", "-c", BARE, str(model), str(seconds), "0"], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[0])


def agent_median_ns(agent: Agent, model: Path, seconds: float) -> float:
    runtime = "tflite" if model.suffix == ".tflite" else "onnx"
    plan = MeasurementPlan(
        name="quick", runtime=runtime, threads=1, min_runs=1, min_seconds=seconds, max_seconds=seconds, processes=1
    )
    common = {
        "runtime": runtime,
        "model": str(model),
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "threads": 1,
        "inputs": None,
        "seed": 0,
    }
    return float(np.median(timed_pass(agent, common, plan, None, lambda message: None).durations_ns))


def native_median_us(model: Path, seconds: float) -> float | None:
    tool = shutil.which("benchmark_model")
    if tool is None or model.suffix != ".tflite":
        return None
    command = [tool, f"--graph={model}", "--num_threads=1", f"--min_secs={seconds}", "--num_runs=50"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"(?:p50|median|avg)=([\d.e+]+)", done.stdout + done.stderr)
    return float(found.group(1)) if found else None


def litert_tool_median_us(model: Path, runs: int) -> float | None:
    """By the Python tool that LiteRT ships beside its runtime; it tells hundredths of a millisecond."""
    if model.suffix != ".tflite" or importlib.util.find_spec("ai_edge_litert.tools.benchmark_litert_model") is None:
        return None
    with NamedTemporaryFile(suffix=".json") as result:
        command = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model", f"--model={model}"]
        command += [f"--num_runs={runs}", "--warmup_runs=50", "--num_threads=1", f"--result_json={result.name}"]
        subprocess.run(command, capture_output=True, check=True)
        return 1e3 * float(json.loads(Path(result.name).read_text())["latency"]["median_ms"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "overhead.jsonl")
    arguments = parser.parse_args()
    fixtures = Path(__file__).parents[2] / "tests/fixtures"
    models = arguments.models or [fixtures / "tiny_int8.tflite", fixtures / "tiny_int8.onnx"]
    lines = []
    with TemporaryDirectory() as folder, LocalSession() as session:
        session.home = folder
        agent = Agent(session, sys.executable, None)
        for model in models:
            model = model.resolve()
            pairs, tools = [], []
            for number in range(arguments.rounds):
                sides = {
                    "agent": lambda: agent_median_ns(agent, model, arguments.seconds),  # noqa: B023
                    "bare": lambda: bare_median_ns(model, arguments.seconds),  # noqa: B023
                }
                order = ["agent", "bare"] if number % 2 else ["bare", "agent"]
                found = {side: sides[side]() / 1e3 for side in order}
                pairs.append((found["agent"], found["bare"]))
                runs = int(min(20_000, max(50, arguments.seconds * 1e6 / found["bare"])))
                tools.append(litert_tool_median_us(model, runs))
            differences = [agent_us - bare_us for agent_us, bare_us in pairs]
            middle = statistics.mean(differences)
            half = student_t(len(pairs) - 1) * statistics.stdev(differences) / len(pairs) ** 0.5
            bare_us = statistics.median(bare for _, bare in pairs)
            bound_us = max(20.0, 0.02 * bare_us)
            line = {
                "model": model.name,
                "bare_median_us": bare_us,
                "agent_median_us": statistics.median(agent_us for agent_us, _ in pairs),
                "difference_us": middle,
                "difference_interval_us": [middle - half, middle + half],
                "bound_us": bound_us,
                "within": -bound_us <= middle - half and middle + half <= bound_us,
                "litert_tool_us": statistics.median(tool) if (tool := [us for us in tools if us is not None]) else None,
                "benchmark_model_us": native_median_us(model, arguments.seconds),
                "load_average": os.getloadavg()[0],
                "pairs_us": pairs,
            }
            lines.append(line)
            print({name: value for name, value in line.items() if name != "pairs_us"})
    arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
