"""Energy per inference against a known power profile, through the whole energy pass at its real length.

Run: `python benchmarks/measuring/energy.py [--model FILE] [--out FILE]`. This machine plays the board. A process
writes the files of an INA3221 (JetPack 6 layout) as a profile of power over time asks, and keeps what it wrote and
when: that is the truth. The agent's sampler reads the files as it would the real ones. Five idle and five running
windows of 10 s a profile.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.board.connection.local import LocalSession
from edgekd.board.measuring.agent_client import Agent
from edgekd.board.measuring.energy_pass import energy_pass
from edgekd.core.energy import trapezoid_joules
from edgekd.records import named_plan

UPDATE_S = 0.005


def steady(at: float) -> float:
    return 5.0 + random.gauss(0, 0.02)


def swinging(at: float) -> float:
    return 5.0 + 1.0 * math.sin(2 * math.pi * at / 1.7) + 0.4 * math.sin(2 * math.pi * at / 0.31)


def bursts(at: float) -> float:
    return (7.5 if at % 0.8 < 0.23 else 3.5) + random.gauss(0, 0.05)


def drifting(at: float) -> float:
    return 4.0 + 0.006 * (at % 200) + random.gauss(0, 0.02)


PROFILES: dict[str, Callable[[float], float]] = {f.__name__: f for f in (steady, swinging, bursts, drifting)}


def write_registers(folder: str, profile: str, pipe: Connection) -> None:
    """Play the driver until told to stop, then hand over what was written and when."""
    seconds, watts = [], []
    base = Path(folder)

    def put(name: str, value: object) -> None:
        (base / ".next").write_text(f"{value}\n")
        (base / ".next").replace(base / name)

    for n, label in ((1, "VDD_IN"), (2, "VDD_CPU_GPU_CV"), (3, "VDD_SOC")):
        put(f"in{n}_label", label)
        put(f"in{n}_input", 5000)
        put(f"curr{n}_input", 100)
    pipe.send("ready")
    began = time.perf_counter()
    while not pipe.poll():
        milliamperes = round(PROFILES[profile](time.perf_counter() - began) / 5.0 * 1e3)
        put("curr1_input", milliamperes)
        seconds.append(time.perf_counter())
        watts.append(milliamperes * 5.0 / 1e3)
        time.sleep(UPDATE_S)
    pipe.send((seconds, watts))


def one(profile: str, model: Path, agent: Agent, root: Path) -> dict[str, object]:
    folder = root / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    folder.mkdir(parents=True, exist_ok=True)
    here, there = multiprocessing.Pipe()
    writer = multiprocessing.Process(target=write_registers, args=(str(folder), profile, there), daemon=True)
    writer.start()
    here.recv()
    runtime = "tflite" if model.suffix == ".tflite" else "onnx"
    plan = named_plan("quick", runtime, 1).model_copy(update={"meter": "ina3221", "background": "declared"})
    common = {
        "runtime": runtime,
        "model": str(model),
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "threads": 1,
        "inputs": None,
        "seed": 0,
    }
    result = energy_pass(agent, common, plan, None, os.cpu_count() or 1, lambda message: None)
    here.send("stop")
    seconds, watts = here.recv()
    writer.join()
    power, origin = result.power, result.method["clock_origin_ns"] / 1e9
    assert power is not None
    active = [window for window in power.windows if window.runs]
    joules = sum(trapezoid_joules(seconds, watts, origin + w.begin_s, origin + w.end_s) for w in active)
    truth = 1e3 * joules / sum(window.runs for window in active)
    low, high = power.interval_mj or (math.nan, math.nan)
    return {
        "profile": profile,
        "truth_mj": truth,
        "energy_mj": power.energy_mj,
        "error": power.energy_mj / truth - 1,
        "interval_mj": [low, high],
        "covered": low <= truth <= high,
        "rate_hz": power.rate_hz,
        "readings": len(power.trace),
        "problems": list(power.problems),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    fixture = Path(__file__).parents[2] / "tests/fixtures/tiny_int8.tflite"
    parser.add_argument("--model", type=Path, default=fixture)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "energy.jsonl")
    arguments = parser.parse_args()
    lines = []
    with TemporaryDirectory() as folder, LocalSession() as session:
        session.home = folder
        os.environ["EDGEKD_SYSFS"] = f"{folder}/sys"
        agent = Agent(session, sys.executable, None)
        for profile in PROFILES:
            line = one(profile, arguments.model.resolve(), agent, Path(folder) / "sys")
            lines.append(line)
            print(line, flush=True)
    arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
