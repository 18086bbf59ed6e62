"""Jetson's INA3221, three shunts a chip, through sysfs: the layouts of JetPack 4 and of JetPack 5 to 7.

JetPack 4: `bus/i2c/drivers/ina3221x/6-0040/iio:device0/{rail_name_0,in_voltage0_input,in_current0_input}`, mV and mA.
JetPack 5 and later: `bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/{in1_label,in1_input,curr1_input}`, mV and mA; the
hwmon number changes between boots; in4 to in6 are shunt voltages and in7 is their sum, so only 1 to 3 are read.
Sources: rbonghi/jetson_stats jtop/core/power.py; Linux drivers/hwmon/ina3221.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .source import MeterFailure, Source, read_label, read_value, total_of

UNUSED = ("", "NC")
INTERVAL_S = 0.05
# TI SBOS576: a step is 8 mV on the bus and 40 uV across the shunt, whose zero may be 80 uV off; with the 5 mOhm
# shunts of Jetson modules that is 8 mA, and 16 mA off zero.
STEP_V, STEP_A, ZERO_A = 0.008, 0.008, 0.016
# 1 % shunt, 0.25 % amplifier, 0.25 % bus voltage.
GAIN = 0.015


@dataclass(frozen=True)
class Channel:
    """One shunt."""

    rail: str
    millivolts: Path
    milliamperes: Path

    def watts(self) -> float:
        """Power now; OSError where the channel is switched off."""
        return read_value(self.millivolts) * read_value(self.milliamperes) / 1e6


def channels(sysfs: Path) -> list[Channel]:
    """All channels that name a rail and give readings."""
    found = []
    for device in sorted(sysfs.glob("bus/i2c/drivers/ina3221x/*-*/iio:device*")):
        for n in range(3):
            label = read_label(device / f"rail_name_{n}")
            found.append(Channel(label, device / f"in_voltage{n}_input", device / f"in_current{n}_input"))
    for device in sorted(sysfs.glob("bus/i2c/drivers/ina3221/*-*/hwmon/hwmon*")):
        for n in range(1, 4):
            label = read_label(device / f"in{n}_label")
            found.append(Channel(label, device / f"in{n}_input", device / f"curr{n}_input"))
    return [channel for channel in found if channel.rail not in UNUSED and _works(channel)]


def _works(channel: Channel) -> bool:
    try:
        channel.watts()
    except (OSError, ValueError):
        return False
    return True


def find(sysfs: Path) -> Source | None:
    """The total of this module, or None where there is no INA3221."""
    found = {channel.rail: channel for channel in channels(sysfs)}
    if not found:
        return None
    rails, grade = total_of({rail: 0.0 for rail in found})
    if not rails:
        raise MeterFailure(f"the INA3221 here has only the rails {', '.join(found)}, which are parts of others")
    resolution_w = 0.0
    for rail in rails:
        volts = read_value(found[rail].millivolts) / 1e3
        amperes = read_value(found[rail].milliamperes) / 1e3
        resolution_w += volts * (STEP_A + 2 * ZERO_A) + abs(amperes) * STEP_V
    return Source("ina3221", " + ".join(rails), grade, INTERVAL_S, resolution_w, GAIN, places=rails)


def reader(source: Source, sysfs: Path) -> Callable[[], float]:
    """A function that gives the power now, in W."""
    found = {channel.rail: channel for channel in channels(sysfs)}
    missing = [rail for rail in source.places if rail not in found]
    if missing:
        raise MeterFailure(f"the INA3221 has no rail {', '.join(missing)} any more")
    chosen = [found[rail] for rail in source.places]
    return lambda: sum(channel.watts() for channel in chosen)
