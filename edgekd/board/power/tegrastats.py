"""NVIDIA's `tegrastats`, for Jetsons whose INA3221 this login may not read through sysfs.

A rail is printed as `VDD_IN 5297/5297` (JetPack 4, mW), `VDD_IN 4824mW/4824mW` (5 and 6) or with a third figure (7):
now, then averages since the program started. Lines captured by henrygd/beszel and rbonghi/jetson_stats are the tests.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from .source import MeterFailure, Source, total_of

INTERVAL_S = 0.1
SEARCH = "/usr/bin:/usr/local/bin:/home/nvidia"
TIMEOUT_S = 10.0
RESOLUTION_W = 0.12
GAIN = 0.015
_RAIL = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]*) (\d+)(?:mW)?(?:/\d+(?:mW)?){1,2}(?!\S)")


def rails_of(line: str) -> dict[str, float]:
    """The power of each rail now, in W, from one line of `tegrastats`."""
    return {rail: int(milliwatts) / 1e3 for rail, milliwatts in _RAIL.findall(line)}


def find(sysfs: Path) -> Source | None:
    """The total of this module as tegrastats tells it, or None where there is no tegrastats."""
    program = _program()
    if program is None:
        return None
    process = _start(program)
    try:
        watts = rails_of(_line(process))
    finally:
        _stop(process)
    if not watts:
        return None
    rails, grade = total_of(watts)
    return Source("tegrastats", " + ".join(rails), grade, INTERVAL_S, RESOLUTION_W, GAIN, places=rails)


def reader(source: Source, sysfs: Path) -> Callable[[], float]:
    """A function that waits for the next line and gives its power in W; the program ends with this process."""
    program = _program()
    if program is None:
        raise MeterFailure("tegrastats is not here any more")
    process = _start(program)

    def watts() -> float:
        found = rails_of(_line(process))
        return sum(found[rail] for rail in source.places)

    return watts


def _program() -> str | None:
    return shutil.which("tegrastats") or shutil.which("tegrastats", path=SEARCH)


def _start(program: str) -> subprocess.Popen[str]:
    command = [program, "--interval", str(int(INTERVAL_S * 1e3))]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")


def _line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline(8192) if process.stdout else ""
    if not line:
        raise MeterFailure("tegrastats ended")
    return line


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
