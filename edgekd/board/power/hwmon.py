"""Any chip that Linux's hwmon gives a `power1_input` (uW) for: INA219, INA226, INA260 and the like.

Where its shunt sits only the builder knows. A label that names an input makes it grade B; without one it is grade C,
unless the profile's `[[sensors]]` of kind `hwmon` says better (docs: Linux Documentation/hwmon/ina2xx.rst).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .source import MeterFailure, Source, read_label, read_value

INTERVAL_S = 0.05
INPUT_WORDS = ("vin", "vdd_in", "5v_in", "dc_in", "input", "supply", "total")
# A step of power is 25 steps of current at 1.25 mV (INA226) or 10 mW (INA260); the finest step seen counts if larger.
RESOLUTION_W = 0.01
# INA219 0.5 %, INA226 0.1 %, INA260 0.5 % with its own shunt; others have one of 1 %.
GAIN = 0.015
OWN_METER = ("ina238", "ina3221")


def find(sysfs: Path, name: str | None = None) -> Source | None:
    """The one meter here (of that chip's name where one is given), or None.

    Raises:
        MeterFailure: there are several, and none of them names an input.
    """
    found = []
    for device in sorted(sysfs.glob("class/hwmon/hwmon*")):
        chip = read_label(device / "name")
        if chip in OWN_METER or chip.startswith("ucsi") or (name is not None and chip != name):
            continue
        try:
            read_value(device / "power1_input")
        except (OSError, ValueError):
            continue
        found.append((chip or device.name, read_label(device / "power1_label"), device))
    inputs = [entry for entry in found if any(word in entry[1].lower() for word in INPUT_WORDS)]
    if len(inputs) != 1 and len(found) > 1:
        names = ", ".join(chip for chip, _, _ in found)
        raise MeterFailure(f"several hwmon power sensors are here ({names}): say which with --power hwmon:NAME")
    if not found:
        return None
    chip, label, device = (inputs or found)[0]
    rail = f"{chip} {label}".strip() if label else f"{chip}, shunt in a rail that it does not name"
    path = str(device / "power1_input")
    return Source("hwmon", rail, "B" if inputs else "C", _interval(device), RESOLUTION_W, GAIN, places=(path,))


def _interval(device: Path) -> float:
    try:
        return max(INTERVAL_S, read_value(device / "update_interval") / 1e3)
    except (OSError, ValueError):
        return INTERVAL_S


def reader(source: Source, sysfs: Path) -> Callable[[], float]:
    """A function that gives the power now, in W."""
    path = Path(source.places[0])
    return lambda: read_value(path) / 1e6
