"""The tables of README.md from accuracy.jsonl: mean test accuracy of each way, and paired differences of the search.

python benchmarks/search/summary.py
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from edgekd.core.statistics import student_t

ROWS = Path(__file__).with_name("accuracy.jsonl")
METHODS = ("search", "width", "random", "ladder")


def difference(ours: dict[int, float], theirs: dict[int, float]) -> str:
    """Mean paired difference in points over the seeds that both have, with Student's 95 % interval."""
    pairs = np.array([100 * (ours[seed] - theirs[seed]) for seed in sorted(set(ours) & set(theirs))])
    if len(pairs) < 2:
        return f"{pairs.mean():+.2f}" if len(pairs) else ""
    half = student_t(len(pairs) - 1, 0.95) * float(pairs.std(ddof=1)) / math.sqrt(len(pairs))
    return f"{pairs.mean():+.2f} [{pairs.mean() - half:+.2f}, {pairs.mean() + half:+.2f}]"


def main() -> None:
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
    cells: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        cells[f"{row['task']}, {row['budget']}"][row["method"]].append(row)
    sys.stdout.write("| task, budget (seeds) | " + " | ".join(METHODS) + " |\n|" + " --- |" * (1 + len(METHODS)) + "\n")
    for cell, by in cells.items():
        told = []
        for method in METHODS:
            found = by[method]
            mean = 100 * np.mean([row["test"] for row in found]) if found else math.nan
            used = [row["measured_p50_ms"] / row["limit_p90_ms"] for row in found if "measured_p50_ms" in row]
            runs = np.mean([row["runs"] for row in found]) if found else math.nan
            seconds = np.mean([row["cpu_s"] for row in found]) if found else math.nan
            limit = f", {100 * np.mean(used):.0f} % of the limit" if used else ""
            told.append(f"{mean:.2f}, {runs:.0f} runs, {seconds:.0f} s{limit}" if found else "")
        sys.stdout.write(f"| {cell} ({len(by['search'])}) | " + " | ".join(told) + " |\n")
    others = METHODS[1:]
    sys.stdout.write("\n| search less | " + " | ".join(others) + " |\n|" + " --- |" * (1 + len(others)) + "\n")
    for cell, by in cells.items():
        tests = {method: {row["seed"]: row["test"] for row in found} for method, found in by.items()}
        told = [difference(tests["search"], tests.get(method, {})) for method in others]
        sys.stdout.write(f"| {cell} | " + " | ".join(told) + " |\n")


if __name__ == "__main__":
    main()
