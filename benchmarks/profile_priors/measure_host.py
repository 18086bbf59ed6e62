"""Times random students on this machine, one thread, and writes a row of cost features and latency for each.

Students are drawn uniformly from the built-in spaces and interleaved over rounds, so that a slow spell of the
machine falls on all alike; a student's latency is the median over rounds of the round's lower quartile.

    python benchmarks/profile_priors/measure_host.py --students 60 --out benchmarks/data/host_litert_students.csv
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from random_tflite import tflite_bytes

from edgekd.core.architecture import Architecture, operator_list
from edgekd.core.operators import features
from edgekd.core.spaces import SPACES

NATIVE = {"ds-cnn": (6, 1, 128), "inverted-residual": (1, 28, 28)}


def draw(count: int, seed: int) -> list[tuple[str, Architecture]]:
    """Students of both spaces, alternating, each choice uniform."""
    random = np.random.default_rng(seed)
    drawn = []
    for index in range(count):
        space = SPACES[sorted(NATIVE)[index % 2]]
        native = NATIVE[space.name]
        choices = {name: int(random.choice(values)) for name, values in space.dimensions(native).items()}
        label = space.name + " " + " ".join(f"{name}={value}" for name, value in choices.items())
        drawn.append((label, space.architecture(choices, native, 10)))
    return drawn


def prepared(architecture: Architecture, scheme: str) -> Interpreter:
    interpreter = Interpreter(model_content=tflite_bytes(architecture, scheme), num_threads=1)
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    interpreter.set_tensor(detail["index"], np.ones(detail["shape"], detail["dtype"]))
    return interpreter


def quartile_ms(interpreter: Interpreter, seconds: float) -> float:
    interpreter.invoke()
    samples, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples) < 10:
        start = time.perf_counter()
        interpreter.invoke()
        samples.append(time.perf_counter() - start)
    return float(np.quantile(samples, 0.25)) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.05, help="timed running per student and round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    for scheme in ("wi8_ai8", "fp32"):
        students = draw(arguments.students, arguments.seed)
        interpreters = [prepared(architecture, scheme) for _, architecture in students]
        times = np.array(
            [[quartile_ms(one, arguments.seconds) for one in interpreters] for _ in range(arguments.rounds)]
        )
        for (label, architecture), latency in zip(students, np.median(times, axis=0), strict=True):
            row = {"student": label, "scheme": scheme, "latency_ms": f"{latency:.6f}"}
            values = features(operator_list(architecture), scheme)
            rows.append(row | {name: f"{value:.6g}" for name, value in values.items()})
    names = sorted({name for row in rows for name in row} - {"student", "scheme", "latency_ms"})
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["student", "scheme", "latency_ms", *names], restval="0", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
