"""The meters that run on a board, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from . import hwmon, ina238, ina3221, pmic_read_adc, rapl, tegrastats
from .source import MeterFailure, Source


class Meter(Protocol):
    """A module of this package."""

    def find(self, sysfs: Path) -> Source | None:
        """What is there, or None."""

    def reader(self, source: Source, sysfs: Path) -> Callable[[], float]:
        """A function that reads it."""


METERS: dict[str, Meter] = {
    "ina3221": cast("Meter", ina3221),
    "ina238": cast("Meter", ina238),
    "hwmon": cast("Meter", hwmon),
    "tegrastats": cast("Meter", tegrastats),
    "pmic_read_adc": cast("Meter", pmic_read_adc),
    "rapl": cast("Meter", rapl),
}
"""In the order in which one is preferred to another of the same grade."""


def choose(wanted: str, sysfs: Path) -> tuple[Source | None, list[str]]:
    """The meter of that name (`hwmon:CHIP` picks a chip), or with `auto` the best one here; and what stood in the way.

    Raises:
        MeterFailure: the one asked for by name is not here or cannot be used.
    """
    if wanted != "auto":
        name, _, chip = wanted.partition(":")
        if name not in METERS or (chip and name != "hwmon"):
            raise MeterFailure(f"there is no meter '{wanted}': {', '.join(METERS)}")
        source = hwmon.find(sysfs, chip) if chip else METERS[name].find(sysfs)
        if source is None:
            raise MeterFailure(f"this board has no {wanted} power sensor")
        return source, []
    found, problems = [], []
    for meter in METERS.values():
        try:
            source = meter.find(sysfs)
        except MeterFailure as error:
            problems.append(str(error))
            continue
        if source is not None:
            found.append(source)
    return min(found, key=lambda source: source.grade, default=None), problems


def reader_of(source: Source, sysfs: Path) -> Callable[[], float]:
    """The function that reads a meter."""
    return METERS[source.meter].reader(source, sysfs)
