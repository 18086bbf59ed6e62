"""Accuracy of teacher, scratch, distilled and int8 student on both built-in tasks, over seeds.

Each row is one whole `edgekd fit`, judged on a test split that nothing before it read. Rows are appended to
accuracy.jsonl beside this file; a row that is there is not run again.

    python benchmarks/main_job/accuracy.py --seeds 3
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS = Path(__file__).with_name("accuracy.jsonl")
TASKS = ("watch-gestures", "fashion-mnist")
MODELS = ("teacher", "scratch", "student_fp32", "student_int8")


def rows() -> list[dict]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def run(task: str, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        command = ["edgekd", "fit", "--profile", "rpi4", "--task", task, "--seed", str(seed), "--json"]
        done = subprocess.run(
            [str(Path(sys.executable).parent / "edgekd"), *command[1:], "--out", f"{folder}/run"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode not in (0, 1, 6):
        raise SystemExit(f"{' '.join(command)} failed with exit code {done.returncode}")
    report = json.loads(done.stdout)
    return {
        "task": task,
        "seed": seed,
        **{model: report["accuracy"][model] for model in MODELS},
        "test_inputs": report["accuracy"]["inputs"],
        "student": report["student"]["choices"],
        "parameters": report["student"]["parameters"],
        "macs": report["student"]["macs"],
        "parity": {
            pair["pair"]: {key: pair[key] for key in ("inputs", "top1_agreement", "max_abs_lsb", "identical_logits")}
            for pair in report["parity"]
        },
        "size_bytes": {artifact["path"]: artifact["size_bytes"] for artifact in report["artifacts"]},
        "cpu_s": round(sum(stage["cpu_s"] for stage in report["stages"]), 1),
        "command": " ".join(command),
        "edgekd": report["edgekd_version"],
    }


def table() -> None:
    print("| task | seeds | teacher | scratch | distilled | int8 | int8 - fp32 | distilled - scratch | least parity |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for task in TASKS:
        chosen = [row for row in rows() if row["task"] == task]
        if not chosen:
            continue
        cells = [summary([row[model] for row in chosen]) for model in MODELS]
        cells.append(summary([row["student_int8"] - row["student_fp32"] for row in chosen]))
        cells.append(summary([row["student_fp32"] - row["scratch"] for row in chosen]))
        least = min(pair["top1_agreement"] for row in chosen for pair in row["parity"].values())
        print(f"| {task} | {len(chosen)} | {' | '.join(cells)} | {100 * least:.2f} % |")


def summary(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{100 * statistics.mean(values):.2f} ± {100 * spread:.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--task", choices=TASKS, action="append")
    options = parser.parse_args()
    for task in options.task or TASKS:
        for seed in range(options.seeds):
            if not any((row["task"], row["seed"]) == (task, seed) for row in rows()):
                row = run(task, seed)
                with ROWS.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
    table()
