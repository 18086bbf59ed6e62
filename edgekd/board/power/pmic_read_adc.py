"""Raspberry Pi 5: `vcgencmd pmic_read_adc`, the currents and voltages of twelve rails of its power controller.

It has no current of the 5 V input, so what the board draws is not measured: the sum leaves out USB, everything on 5 V
and the losses of conversion (grade C; a community fit says total = 1.145 * sum + 0.588 W, and edgekd does not apply
it). 3V7_WL_SW_V drifts with the chip's temperature (raspberrypi/linux issue 6473).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from .source import MeterFailure, Source

# Each reading starts a program, which takes some milliseconds of a core.
INTERVAL_S = 0.25
TIMEOUT_S = 2.0
RESOLUTION_W = 0.005
GAIN = 0.05
_READING = re.compile(r"^\s*(\w+)_([AV]) (?:current|volt)\(\d+\)=(-?\d+\.\d+)([AV])\s*$")


def rails_of(text: str) -> dict[str, float]:
    """The power in W of each rail that gives both a current and a voltage."""
    values: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        match = _READING.match(line)
        if match and match.group(2) == match.group(4):
            values.setdefault(match.group(1), {})[match.group(2)] = float(match.group(3))
    return {rail: value["A"] * value["V"] for rail, value in values.items() if "A" in value and "V" in value}


def find(sysfs: Path) -> Source | None:
    """The sum of the rails, or None where this is no board with such a controller."""
    program = _program()
    if program is None:
        return None
    try:
        rails = rails_of(_output(program))
    except (OSError, MeterFailure):
        return None
    if not rails:
        return None
    rail = f"sum of {len(rails)} rails, without the 5 V input"
    return Source("pmic_read_adc", rail, "C", INTERVAL_S, RESOLUTION_W, GAIN, places=tuple(rails))


def reader(source: Source, sysfs: Path) -> Callable[[], float]:
    """A function that gives the rails' power now, in W."""
    program = _program()
    if program is None:
        raise MeterFailure("vcgencmd is not here any more")

    def watts() -> float:
        rails = rails_of(_output(program))
        return sum(rails[rail] for rail in source.places)

    return watts


def _program() -> str | None:
    return shutil.which("vcgencmd", path=os.environ.get("PATH", os.defpath) + ":/usr/bin:/opt/vc/bin")


def _output(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "pmic_read_adc"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=True,
        )
    except subprocess.SubprocessError as error:
        raise MeterFailure(f"vcgencmd pmic_read_adc: {error}") from error
    return done.stdout[:16384]
