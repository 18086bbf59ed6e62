"""Latency of fp32 and int8, TFLite and ONNX, at 1 and 2 threads on this machine, as ratios of one run.

The files are those of a run directory. Every combination is measured by `edgekd measure` in turn, and the whole
round is repeated, so that what the machine does meanwhile falls on all alike; the median over rounds is compared.

    python benchmarks/main_job/latency.py runs/latest --rounds 3
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

RESULT = Path(__file__).with_name("latency.json")
FILES = ("student_fp32.tflite", "student.tflite", "student_fp32.onnx", "student.onnx")


def measure(run: Path, name: str, threads: int) -> dict:
    command = [str(Path(sys.executable).parent / "edgekd"), "measure", str(run / name), "--board", "local"]
    command += ["--threads", str(threads), "--plan", "quick", "--inputs", str(run / "test_inputs.npz"), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)["measurement"]
    return {key: found[key] for key in ("latency_p50_ms", "latency_p90_ms", "runs", "peak_memory_bytes", "provider")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cases = [(name, threads) for name in FILES for threads in (1, 2)]
    rounds = [{case: measure(options.run, *case) for case in cases} for _ in range(options.rounds)]
    report = json.loads((options.run / "report.json").read_text())
    rows = []
    base = statistics.median(result[FILES[0], 1]["latency_p50_ms"] for result in rounds)
    for name, threads in cases:
        p50 = statistics.median(result[name, threads]["latency_p50_ms"] for result in rounds)
        p90 = statistics.median(result[name, threads]["latency_p90_ms"] for result in rounds)
        rows.append(
            {
                "file": name,
                "threads": threads,
                "p50_ms": p50,
                "p90_ms": p90,
                "ratio_to_fp32_tflite_1_thread": p50 / base,
                "rounds_p50_ms": [result[name, threads]["latency_p50_ms"] for result in rounds],
                "peak_memory_bytes": rounds[-1][name, threads]["peak_memory_bytes"],
                "provider": rounds[-1][name, threads]["provider"],
            }
        )
    result = {
        "task": report["task"],
        "student": report["student"]["choices"],
        "macs": report["student"]["macs"],
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "rows": rows,
    }
    existing = json.loads(RESULT.read_text()) if RESULT.exists() else []
    kept = [entry for entry in existing if entry["task"] != result["task"]]
    RESULT.write_text(json.dumps([*kept, result], indent=1) + "\n")
    for row in rows:
        ratio, tail = row["ratio_to_fp32_tflite_1_thread"], row["p90_ms"] / row["p50_ms"]
        print(f"| {row['file']} | {row['threads']} | {ratio:.2f} | {tail:.2f} |")


if __name__ == "__main__":
    main()
