"""The INA238 in the input of Jetson AGX Thor's carrier board (JetPack 7): power in uW, the total.

`bus/i2c/drivers/ina238/*/hwmon/hwmonN/power1_input`, or any `class/hwmon/hwmonN` of that name. Its volts and amperes
are in mV and mA. Source: rbonghi/jetson_stats pull request 900. The USB-C port's entry in power_supply (ucsi) tells
what was negotiated, not what flows, and is not read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .source import Source, read_label, read_value

INTERVAL_S = 0.05
RESOLUTION_W = 0.02
# TI SBOSA20: 0.1 % amplifier and 0.1 % bus; the shunt of 1 % dominates.
GAIN = 0.012


def find(sysfs: Path) -> Source | None:
    """The input's meter, or None where there is none."""
    devices = sorted(sysfs.glob("bus/i2c/drivers/ina238/*-*/hwmon/hwmon*"))
    devices += [path for path in sorted(sysfs.glob("class/hwmon/hwmon*")) if read_label(path / "name") == "ina238"]
    for device in devices:
        try:
            read_value(device / "power1_input")
        except (OSError, ValueError):
            continue
        rail = read_label(device / "power1_label") or read_label(device / "in1_label") or "VIN"
        return Source("ina238", rail, "B", INTERVAL_S, RESOLUTION_W, GAIN, places=(str(device / "power1_input"),))
    return None


def reader(source: Source, sysfs: Path) -> Callable[[], float]:
    """A function that gives the power now, in W."""
    path = Path(source.places[0])
    return lambda: read_value(path) / 1e6
