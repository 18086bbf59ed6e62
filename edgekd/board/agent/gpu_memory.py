"""Memory that a Jetson's GPU holds: it is the board's own RAM, but no process's resident set shows it.

The driver lists what each process holds in debugfs, readable by root (nvmap). Elsewhere what the whole system has less
of, beyond the process's own growth, stands for it: others' work is then in it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .state import is_jetson, read_text

CLIENTS = "kernel/debug/nvmap/iovmm/clients"
_UNITS = {"": 1, "K": 1, "M": 1024}


def nvmap_kib(text: str, process: int) -> int:
    """What a process holds by nvmap's list of clients, in KiB: lines of kind, name, process and size (`1234K`)."""
    total = 0
    for line in text.splitlines():
        fields = line.split()
        size = re.fullmatch(r"(\d+)([KM]?)", fields[3]) if len(fields) == 4 else None
        if size and fields[2] == str(process):
            total += int(size.group(1)) * _UNITS[size.group(2)]
    return total


def _kib(text: str | None, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB$", text or "", re.MULTILINE)
    return int(found.group(1)) if found else None


class GpuMemory:
    """Watches a process from before it uses the GPU; on any board but a Jetson it finds nothing."""

    def __init__(self, sysfs: Path, process: int | None = None) -> None:
        self._jetson = is_jetson(sysfs)
        self._clients = sysfs / CLIENTS
        self._listed = self._jetson and read_text(self._clients) is not None
        self._before = self._free(process)
        self._peak_kib = 0

    def _free(self, process: int | None) -> int:
        """What the system has free in KiB, and what the process took of the rest as its own resident memory."""
        own = _kib(read_text(Path(f"/proc/{process}/status")), "VmRSS") if process else 0
        return (_kib(read_text(Path("/proc/meminfo")), "MemAvailable") or 0) + (own or 0)

    def look(self, process: int) -> None:
        """Look now, and keep the most that was seen."""
        if not self._jetson:
            return
        if self._listed:
            held = nvmap_kib(read_text(self._clients, 2**20) or "", process)
        else:
            held = self._before - self._free(process)
        self._peak_kib = max(self._peak_kib, held)

    def found(self) -> dict[str, Any]:
        """For the memory line: how much, and by what."""
        if not self._jetson:
            return {}
        how = "nvmap" if self._listed else "what the system had less of (nvmap's list is root's)"
        return {"gpu_kib": self._peak_kib, "gpu_from": how}
