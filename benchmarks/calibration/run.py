"""Does a calibration of this machine predict students that lie beyond what it was calibrated on?

30 students with random weights are measured and fitted by `edgekd calibrate`; 20 others, drawn from wider ranges
(input sizes, widths, depths and expansions beyond those calibrated on; kernels as the spaces offer them), are then
timed by the same interleaved rounds and predicted from the new profile; beside it, from the same timings, by a model
that knows nothing of indirect convolutions. One row a seed is appended to rows.jsonl; a
seed that is there is not run again.

    python benchmarks/calibration/run.py --seeds 1 --minutes 5
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from edgekd.cli.console import ConsoleProgress
from edgekd.core.architecture import operator_list
from edgekd.core.calibration import level_of
from edgekd.core.latency_calibration import KERNELS, fit_operator_model, validate
from edgekd.core.sampled_students import SampledStudent, sampled_students
from edgekd.core.spaces import SPACES
from edgekd.load import load_profile
from edgekd.pipeline.boards.calibrate import CalibrateOptions, calibrate
from edgekd.pipeline.boards.calibration_rounds import write_student
from edgekd.pipeline.boards.timing import BoardAddress, timer_on, write_random_files
from edgekd.records import HeldOut

ROWS = Path(__file__).with_name("rows.jsonl")
NATIVE = {
    "ds-cnn": ((1, 1, 40), (6, 1, 128), (4, 1, 400), (12, 1, 768)),
    "inverted-residual": ((1, 20, 20), (1, 28, 28), (3, 80, 80), (3, 112, 112)),
}
WIDER = {
    "width": (6, 10, 20, 28, 40, 56, 64),
    "depth": (1, 2, 3, 4, 6),
    "expansion": (2, 3, 5, 8),
}


def wider_students(count: int, seed: int) -> list[SampledStudent]:
    random = np.random.default_rng([seed, 77])
    students = []
    for index in range(count):
        name = sorted(NATIVE)[index % 2]
        native = NATIVE[name][int(random.integers(len(NATIVE[name])))]
        dimensions = SPACES[name].dimensions(native)
        choices = {key: int(random.choice(WIDER.get(key, values))) for key, values in dimensions.items()}
        students.append(SampledStudent(name, native, choices, int(random.choice((3, 20, 100)))))
    return students


def measured(students: list[SampledStudent], rounds: int, progress: ConsoleProgress) -> list[float]:
    profile = load_profile("host")
    with (
        tempfile.TemporaryDirectory() as folder,
        timer_on(BoardAddress("local"), profile, "tflite", progress) as timer,
    ):
        wanted = {f"wider-{i:02d}.tflite": partial(write_student, one, "wi8_ai8") for i, one in enumerate(students)}
        files = write_random_files(wanted, Path(folder), progress)
        remote = timer.put({name: path for name, (path, _) in files.items()}, "benchmark-calibration")
        times: list[list[float]] = [[] for _ in students]
        for number in range(rounds):
            progress.stage("others", f"round {number + 1} of {rounds}")
            for index, (name, (_, sha256)) in enumerate(files.items()):
                times[index].append(timer.time(f"{remote}/{name}", sha256, 0.25).quiet_ms)
    return [level_of(one)[0] for one in times]


def run(seed: int, students: int, others: int, minutes: float) -> dict:
    with tempfile.TemporaryDirectory() as folder, ConsoleProgress() as progress:
        out = Path(folder) / "here.toml"
        calibration = calibrate(
            CalibrateOptions("host", BoardAddress("local"), minutes, "tflite", out, students, seed), progress
        )
        model = calibration.latency_model
        fitted = [one for one in calibration.samples if one.role != "excluded"]
        wider = wider_students(others, seed)
        latencies = measured(wider, 6, progress)
    labels, lists = [s.label for s in wider], [operator_list(s.architecture()) for s in wider]
    table = validate(model, labels, lists, latencies)
    errors = errors_of(table)
    by_label = {one.label: operator_list(one.architecture()) for one in sampled_students(students, seed)}
    long_sums = fit_operator_model(
        [by_label[one.label] for one in fitted],
        [one.level_ms for one in fitted],
        model,
        among=[kernels for kernels in KERNELS if not kernels.indirect],
    )
    return {
        "seed": seed,
        "calibrated_on": model.samples,
        "excluded": calibration.excluded,
        "tile": model.tile,
        "indirect": model.indirect,
        "tails": model.tails,
        "half_width": model.half_width,
        "held_out_third_mape_percent": model.held_out_mape_percent,
        "held_out_third_coverage": model.interval_coverage,
        "others": len(table),
        "mape_percent": 100 * float(errors.mean()),
        "mape_percent_without_indirect": 100 * float(errors_of(validate(long_sums, labels, lists, latencies)).mean()),
        "median_error_percent": 100 * float(np.median(errors)),
        "coverage": sum(row.covered for row in table) / len(table),
        "latency_range_ms": [min(latencies), max(latencies)],
        "calibration_seconds": calibration.seconds,
        "load_average": os.getloadavg()[1],
        "machine": platform.machine(),
        "rows": [row.model_dump() for row in table],
        "fitted": [{"label": one.label, "level_ms": one.level_ms} for one in fitted],
    }


def errors_of(table: tuple[HeldOut, ...]) -> np.ndarray:
    """How far each prediction lies off, a fraction of what was measured."""
    return np.array([abs(row.predicted_ms / row.measured_ms - 1) for row in table])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--students", type=int, default=30)
    parser.add_argument("--others", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    known = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    for seed in range(options.seeds):
        if any(row["seed"] == seed for row in known):
            continue
        row = run(seed, options.students, options.others, options.minutes)
        with ROWS.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        known.append(row)
    for row in known:
        sys.stdout.write(
            f"seed {row['seed']}: {row['calibrated_on']} fitted, {row['others']} wider: "
            f"MAPE {row['mape_percent']:.1f} %, coverage {100 * row['coverage']:.0f} %\n"
        )


if __name__ == "__main__":
    main()
