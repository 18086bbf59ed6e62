"""RAPL: the energy counters of x86 packages, in uJ, through powercap. They wrap.

`class/powercap/intel-rapl:0/{name,energy_uj,max_energy_range_uj}`; AMD uses the same names. Only root may read them
since CVE-2020-8694. The packages alone: neither memory nor board nor supply is behind them, so it is grade C.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .source import MeterFailure, Source, read_label, read_value

INTERVAL_S = 0.1
# The counter moves in steps of 61 uJ, updated every millisecond; a model of the chip in part, so a wide gain.
RESOLUTION_W = 0.001
GAIN = 0.05


def find(sysfs: Path) -> Source | None:
    """The packages' counters, or None where there are none.

    Raises:
        MeterFailure: they are there, but this login may not read them.
    """
    zones = [path for path in sorted(sysfs.glob("class/powercap/intel-rapl:*")) if path.name.count(":") == 1]
    packages = [zone for zone in zones if read_label(zone / "name").startswith("package")]
    if not packages:
        return None
    try:
        for zone in packages:
            read_value(zone / "energy_uj")
    except PermissionError as error:
        raise MeterFailure(f"RAPL is here, but only root may read {error.filename} (CVE-2020-8694)") from error
    except (OSError, ValueError):
        return None
    rail = " + ".join(read_label(zone / "name") for zone in packages)
    places = tuple(str(zone) for zone in packages)
    return Source("rapl", rail, "C", INTERVAL_S, RESOLUTION_W, GAIN, counts="joules", places=places)


def counted(before: int, now: int, count_range: int) -> int:
    """How far a counter went between two readings, over at most one wrap.

    Raises:
        ValueError: a reading is beyond the counter's range.
    """
    if not 0 <= now <= count_range:
        raise ValueError(f"the counter reads {now}, beyond its range of {count_range}")
    return now - before if now >= before else now - before + count_range


def reader(source: Source, sysfs: Path) -> Callable[[], float]:
    """A function that gives the energy since its first call, in J."""
    counters = [(Path(zone) / "energy_uj", read_value(Path(zone) / "max_energy_range_uj")) for zone in source.places]
    last = [read_value(path) for path, _ in counters]
    total = 0

    def joules() -> float:
        nonlocal total
        for index, (path, count_range) in enumerate(counters):
            now = read_value(path)
            total += counted(last[index], now, count_range)
            last[index] = now
        return total / 1e6

    return joules
