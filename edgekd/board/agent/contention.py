"""How much others took from this process: the kernel's own account of it, not the load average."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

from .state import read_text

COUNTERS = ("pswpin", "pswpout")


def _scheduled() -> tuple[int, int]:
    """Time in ns that this process's threads ran, and that they waited for a core while ready to run."""
    ran = waited = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        fields = (read_text(path, 128) or "").split()
        if len(fields) >= 2:
            ran += int(fields[0])
            waited += int(fields[1])
    return ran, waited


def _swapped_pages() -> int:
    total = 0
    for line in (read_text(Path("/proc/vmstat")) or "").splitlines():
        name, _, value = line.partition(" ")
        if name in COUNTERS:
            total += int(value)
    return total


def busy_and_stolen_ns() -> tuple[int, int]:
    """Time in ns since boot that all cores were busy, and that a hypervisor took from them."""
    fields = (read_text(Path("/proc/stat"), 512) or "").split("\n", 1)[0].split()[1:]
    ticks = [int(field) for field in fields[:8]] + [0] * (8 - len(fields))
    tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
    # user, nice, system, irq, softirq; steal stands apart.
    return sum(ticks[index] for index in (0, 1, 2, 5, 6)) * tick_ns, ticks[7] * tick_ns


def own_cpu_ns() -> int:
    """CPU time in ns that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return int((usage.ru_utime + usage.ru_stime) * 1e9)


def _now() -> dict[str, int]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    ran, waited = _scheduled()
    return {
        "ran_ns": ran,
        "waited_ns": waited,
        "preempted": usage.ru_nivcsw,
        "major_faults": usage.ru_majflt,
        "swapped_pages": _swapped_pages(),
        "stolen_ns": busy_and_stolen_ns()[1],
    }


class Contention:
    """Sums over the timed stretches only, what happened between `begin` and `end`."""

    def __init__(self) -> None:
        self._total: dict[str, int] = {}
        self._begun: dict[str, int] = {}

    def begin(self) -> None:
        """A timed stretch begins."""
        self._begun = _now()

    def end(self) -> None:
        """It is over."""
        for name, value in _now().items():
            self._total[name] = self._total.get(name, 0) + max(0, value - self._begun[name])

    def report(self) -> dict[str, Any]:
        """The sums."""
        return dict(self._total)
