"""Parsers of what a board prints: text in, values out. No I/O.

The formats are those of the Linux kernel (Documentation/ABI and proc(5)) and of the Raspberry Pi's `vcgencmd`.
A value that is missing or malformed becomes None: a board may lack any of them, and a guess would be a lie.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

# CSI and OSC sequences, other two-byte escapes, then any control character left over.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
_THROTTLED = re.compile(r"throttled=0x([0-9a-fA-F]{1,8})\s*$")
_KIB = re.compile(r"^(\w+(?:\(\w+\))?):\s+(\d+) kB", re.MULTILINE)
PLAUSIBLE_CELSIUS = (-40.0, 150.0)


def printable(text: str, limit: int = 2000) -> str:
    """`text` without escape sequences and control characters, cut to `limit` characters: safe to show."""
    clean = _ESCAPES.sub("", text[: limit * 4]).replace("\r", "")
    return clean if len(clean) <= limit else clean[:limit] + " …"


@dataclass(frozen=True, slots=True)
class Throttling:
    """Bits 0 to 3 of `vcgencmd get_throttled` (now), and whether any of bits 16 to 19 is set (since boot).

    Source: raspberrypi/documentation, documentation/asciidoc/computers/os/graphics-utilities.adoc.
    """

    undervoltage: bool
    frequency_capped: bool
    throttled: bool
    soft_temperature_limit: bool
    since_boot: bool

    @property
    def now(self) -> bool:
        """Whether the board is held back at this moment, for whatever reason."""
        return self.undervoltage or self.frequency_capped or self.throttled or self.soft_temperature_limit


def parse_throttled(text: str | None) -> Throttling | None:
    """`throttled=0x50005` → its bits; None where the text is not that."""
    found = _THROTTLED.match(text.strip()) if text else None
    if found is None:
        return None
    bits = int(found.group(1), 16)
    return Throttling(bool(bits & 1), bool(bits & 2), bool(bits & 4), bool(bits & 8), bool(bits & 0xF0000))


def parse_integer(text: str | None) -> int | None:
    """The integer that is the whole of `text`, or None."""
    try:
        return int(text.strip()) if text is not None and len(text) < 64 else None
    except ValueError:
        return None


def parse_millicelsius(text: str | None) -> float | None:
    """A thermal zone's `temp`, in °C. Zones without a sensor report absurd values: those are None."""
    value = parse_integer(text)
    if value is None or not PLAUSIBLE_CELSIUS[0] <= value / 1000 <= PLAUSIBLE_CELSIUS[1]:
        return None
    return value / 1000


def parse_temperatures(zones: Mapping[str, tuple[str, str]]) -> dict[str, float]:
    """Zone directory → (its `type`, its `temp`), to °C by type; of equal types the hottest counts."""
    temperatures: dict[str, float] = {}
    for zone, (kind, raw) in zones.items():
        celsius = parse_millicelsius(raw)
        name = printable(kind.strip(), 64) or zone
        if celsius is not None:
            temperatures[name] = max(celsius, temperatures.get(name, -math.inf))
    return temperatures


def parse_clock_mhz(text: str | None) -> float | None:
    """A cpufreq file (kHz) in MHz."""
    value = parse_integer(text)
    return value / 1000 if value is not None and value > 0 else None


def parse_meminfo(text: str | None) -> dict[str, int]:
    """/proc/meminfo or /proc/PID/status → bytes by field, for the fields that are given in kB (which are KiB)."""
    return {name: int(kib) * 1024 for name, kib in _KIB.findall(text or "")}


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Resident memory of a process in bytes: now, and the most since it began."""

    rss_bytes: int
    peak_rss_bytes: int


def parse_process_memory(text: str | None) -> ProcessMemory | None:
    """/proc/self/status → VmRSS and VmHWM; None where either is missing."""
    fields = parse_meminfo(text)
    if "VmRSS" not in fields or "VmHWM" not in fields:
        return None
    return ProcessMemory(fields["VmRSS"], fields["VmHWM"])


def parse_loadavg(text: str | None) -> tuple[float, float, float] | None:
    """/proc/loadavg → load over 1, 5 and 15 minutes."""
    try:
        one, five, fifteen = (float(word) for word in (text or "").split()[:3])
    except ValueError:
        return None
    return (one, five, fifteen) if all(map(math.isfinite, (one, five, fifteen))) else None


def parse_device_tree_model(text: str | None) -> str | None:
    """/proc/device-tree/model, which ends in a NUL byte, as a plain string."""
    model = printable((text or "").replace("\x00", "").strip(), 200)
    return model or None


def parse_os_release(text: str | None) -> str | None:
    """/etc/os-release → PRETTY_NAME."""
    for line in (text or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return printable(line.removeprefix("PRETTY_NAME=").strip().strip("\"'"), 200)
    return None


def parse_cpu_model(text: str | None) -> str | None:
    """/proc/cpuinfo → `model name` (x86) or, on ARM, implementer and part of the first core."""
    fields: dict[str, str] = {}
    for line in (text or "").splitlines():
        name, separator, value = line.partition(":")
        if separator:
            fields.setdefault(name.strip(), value.strip())
    if "model name" in fields:
        return printable(fields["model name"], 200)
    if "CPU part" in fields:
        return printable(f"implementer {fields.get('CPU implementer', '?')} part {fields['CPU part']}", 200)
    return None


def parse_cpu_features(text: str | None) -> tuple[str, ...]:
    """/proc/cpuinfo → the ISA features of the first core (`flags` on x86, `Features` on ARM)."""
    for line in (text or "").splitlines():
        name, separator, value = line.partition(":")
        if separator and name.strip() in ("flags", "Features"):
            return tuple(printable(value, 4000).split())
    return ()


def parse_power_mode(text: str | None) -> str | None:
    """`nvpmodel -q` of a Jetson (`NV Power Mode: MAXN`, then its id) → the mode's name; ids differ between modules."""
    found = re.search(r"NV Power Mode:\s*(\S.*)", text or "")
    return printable(found.group(1).strip(), 100) if found else None


def parse_glibc(text: str | None) -> tuple[int, int] | None:
    """`glibc 2.36` (getconf GNU_LIBC_VERSION) → (2, 36); None on musl and others."""
    found = re.match(r"glibc (\d{1,3})\.(\d{1,3})", text or "")
    return (int(found.group(1)), int(found.group(2))) if found else None


def parse_df(text: str | None) -> int | None:
    """`df -Pk DIRECTORY` (POSIX: one line a file system, 1024-byte units) → bytes available."""
    fields = (text or "").strip().splitlines()[-1:] or [""]
    found = re.search(r"\s(\d+)\s+(\d+)\s+(-?\d+)\s+\d+%\s", fields[0] + " ")
    return int(found.group(3)) * 1024 if found else None
