"""Does what the search says fits, fit when it is measured? Three budgets, both built-in tasks, ten seeds each.

Needs no training: for each seed the search is asked for twelve candidates under the budget of a calibrated profile of
this machine, and the largest of them (the one nearest the limit, the hardest case) is timed with random weights. The
budgets are set where a twentieth, a third and nine tenths of the space's students fit by the calibrated model. The
limit is on p90, as a profile's own; what counts is the median of the p90 of seven interleaved rounds, disturbed or not,
and the quietest round stands beside it. One row a case is appended to budgets.jsonl; one that is there is not run
again.

    edgekd calibrate --profile host --board local --out /tmp/here.toml
    python benchmarks/search/budgets.py --profile /tmp/here.toml
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from edgekd.cli.console import ConsoleProgress
from edgekd.convert.random_student import write_random_student
from edgekd.core.calibration import level_of
from edgekd.core.propose import candidate_of, needed, propose
from edgekd.core.search import Search
from edgekd.core.spaces import SPACES, every_choice
from edgekd.load import load_profile
from edgekd.nn.students import Student, example_input
from edgekd.pipeline.boards.timing import BoardAddress, timer_on, write_random_files
from edgekd.records import Budget, Candidate, DeviceProfile

ROWS = Path(__file__).with_name("budgets.jsonl")
TASKS = {"watch-gestures": ("ds-cnn", (6, 1, 128), 7), "fashion-mnist": ("inverted-residual", (1, 28, 28), 10)}
BUDGETS = {"tight": 0.05, "middle": 0.33, "loose": 0.9}
ROUNDS, ROUND_SECONDS = 7, 0.25


def limits_of(task: str, profile: DeviceProfile) -> dict[str, float]:
    """The p90 limit of each budget, in ms."""
    name, native, outputs = TASKS[task]
    space = SPACES[name]
    ends = [
        needed(
            "latency_p90_ms",
            candidate_of(space, choices, native, outputs, profile, Budget()).predicted["latency_p90_ms"],
        )
        for choices in every_choice(space, native, {})
    ]
    return {budget: float(np.quantile(ends, share)) for budget, share in BUDGETS.items()}


def proposed(task: str, limit: float, seed: int, profile: DeviceProfile) -> Candidate:
    name, native, outputs = TASKS[task]
    space, budget = SPACES[name], Budget(latency_p90_ms=limit)
    fitting = propose(space, native, outputs, profile, budget, {}, 1).feasible
    asked = Search(space.dimensions(native), fitting, seed).ask(12)
    return max(asked, key=lambda candidate: candidate.predicted["latency_p90_ms"].value)


def write(task: str, candidate: Candidate, path: Path) -> None:
    name, native, outputs = TASKS[task]
    architecture = SPACES[name].architecture(candidate.choices, native, outputs)
    write_random_student(Student(architecture).eval(), example_input(architecture), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", required=True, help="a calibrated profile of this machine")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    profile = load_profile(options.profile)
    known = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    done = {(row["task"], row["budget"], row["seed"]) for row in known}
    cases = []
    for task in TASKS:
        for budget, limit in limits_of(task, profile).items():
            for seed in range(options.seeds):
                if (task, budget, seed) not in done:
                    cases.append((task, budget, limit, seed, proposed(task, limit, seed, profile)))
    with (
        ConsoleProgress() as progress,
        tempfile.TemporaryDirectory() as folder,
        timer_on(BoardAddress("local"), profile, "tflite", progress) as timer,
    ):
        wanted = {f"case-{i:02d}.tflite": partial(write, case[0], case[4]) for i, case in enumerate(cases)}
        files = write_random_files(wanted, Path(folder), progress)
        remote = timer.put({name: path for name, (path, _) in files.items()}, "benchmark-search")
        times: list[list[tuple[float, float]]] = [[] for _ in cases]
        for number in range(ROUNDS):
            progress.stage("measure", f"round {number + 1} of {ROUNDS}")
            for index, (name, (_, sha256)) in enumerate(files.items()):
                timing = timer.time(f"{remote}/{name}", sha256, ROUND_SECONDS)
                times[index].append((timing.median_ms, timing.p90_ms))
    for (task, budget, limit, seed, candidate), found in zip(cases, times, strict=True):
        predicted = candidate.predicted["latency_p90_ms"]
        rounds = [p90 for _, p90 in found]
        p90 = float(np.median(rounds))
        row = {
            "task": task,
            "budget": budget,
            "limit_p90_ms": limit,
            "seed": seed,
            "candidate": candidate.label,
            "macs": candidate.macs,
            "predicted_p90_ms": predicted.value,
            "high_p90_ms": needed("latency_p90_ms", predicted),
            "measured_p50_ms": level_of([median for median, _ in found])[0],
            "measured_p90_ms": p90,
            "quietest_p90_ms": min(rounds),
            "rounds_p90_ms": rounds,
            "met": p90 <= limit,
            "load_average": os.getloadavg()[0],
        }
        known.append(row)
        with ROWS.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
    for task in TASKS:
        for budget in BUDGETS:
            rows = [row for row in known if (row["task"], row["budget"]) == (task, budget)]
            met = sum(row["met"] for row in rows)
            sys.stdout.write(f"{task}, {budget} (p90 {rows[0]['limit_p90_ms']:.4g} ms): {met} of {len(rows)} met\n")


if __name__ == "__main__":
    main()
