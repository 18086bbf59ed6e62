"""What the board says of itself, as raw text: the host parses it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TEXT_LIMIT = 16384
ENTRY_LIMIT = 512
COMMAND_TIMEOUT_S = 2.0


def read_text(path: Path, limit: int = TEXT_LIMIT) -> str | None:
    """The text of a small file, or None where it cannot be read (absent, not permitted, or a sensor's ENODATA)."""
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", errors="replace")
    except OSError:
        return None


def command_places() -> str:
    """Where boards keep their own commands, whatever the login's PATH is."""
    return os.environ.get("PATH", os.defpath) + ":/usr/bin:/usr/sbin:/opt/vc/bin"


def command_output(name: str, *arguments: str) -> str | None:
    """What a command prints, or None where it is not there or fails."""
    path = shutil.which(name, path=command_places())
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout[:TEXT_LIMIT].decode("utf-8", errors="replace")


def is_jetson(sysfs: Path) -> bool:
    """Whether this is one of NVIDIA's Jetson boards."""
    model = read_text(sysfs / "firmware/devicetree/base/model", 1024) or ""
    return "jetson" in model.lower() or Path("/etc/nv_tegra_release").exists()


def _each_cpu(sysfs: Path, name: str) -> dict[str, str]:
    found = {}
    for directory in sorted(sysfs.glob("devices/system/cpu/cpu[0-9]*"))[:ENTRY_LIMIT]:
        text = read_text(directory / name, 256)
        if text is not None:
            found[directory.name] = text.strip()
    return found


def _throttle_alerts(sysfs: Path) -> dict[str, str]:
    """Jetson's cooling devices that only tell that something is held back: their state is 1 meanwhile."""
    found = {}
    for directory in sorted(sysfs.glob("class/thermal/cooling_device*"))[:ENTRY_LIMIT]:
        kind = (read_text(directory / "type", 256) or "").strip()
        state = read_text(directory / "cur_state", 256)
        if kind.endswith("throttle-alert") and state is not None:
            found[kind] = state.strip()
    return found


def read_state(sysfs: Path) -> dict[str, Any]:
    """The state that changes while a run goes on; `at_ns` is on the clock of the samples."""
    zones = {}
    for directory in sorted(sysfs.glob("class/thermal/thermal_zone*"))[:ENTRY_LIMIT]:
        temperature = read_text(directory / "temp", 256)
        if temperature is not None:
            zones[directory.name] = [(read_text(directory / "type", 256) or "").strip(), temperature.strip()]
    return {
        "at_ns": time.perf_counter_ns(),
        "thermal_zones": zones,
        "clocks_khz": _each_cpu(sysfs, "cpufreq/scaling_cur_freq"),
        "governors": _each_cpu(sysfs, "cpufreq/scaling_governor"),
        "throttle_counts": _each_cpu(sysfs, "thermal_throttle/core_throttle_count"),
        "throttle_alerts": _throttle_alerts(sysfs),
        "overcurrent_counts": {
            f"{path.parent.name}/{path.name}": text.strip()
            for path in sorted(sysfs.glob("class/hwmon/hwmon*/oc*_event_cnt"))[:ENTRY_LIMIT]
            if (text := read_text(path, 256)) is not None
        },
        "get_throttled": command_output("vcgencmd", "get_throttled"),
        "loadavg": read_text(Path("/proc/loadavg"), 256),
    }


def power_sensors(sysfs: Path) -> list[str]:
    """Names of the sensors from which power could be read."""
    found = []
    for directory in sorted(sysfs.glob("class/hwmon/hwmon*"))[:ENTRY_LIMIT]:
        if any(directory.glob("power*_input")) or any(directory.glob("curr*_input")):
            labels = sorted((read_text(label, 64) or "").strip() for label in directory.glob("in*_label"))
            found.append(" ".join([(read_text(directory / "name", 64) or directory.name).strip(), *labels])[:250])
    for directory in sorted(sysfs.glob("class/powercap/*"))[:ENTRY_LIMIT]:
        if read_text(directory / "energy_uj", 64) is not None:
            found.append(f"rapl {(read_text(directory / 'name', 64) or directory.name).strip()}")
    return found


def read_facts(sysfs: Path) -> dict[str, Any]:
    """What stays the same while a run goes on, and the state beside it."""
    system = os.uname()
    return {
        "model": read_text(sysfs / "firmware/devicetree/base/model", 1024),
        "meminfo": read_text(Path("/proc/meminfo")),
        "cpuinfo": read_text(Path("/proc/cpuinfo")),
        "os_release": read_text(Path("/etc/os-release")),
        "max_clocks_khz": _each_cpu(sysfs, "cpufreq/cpuinfo_max_freq"),
        "nvpmodel": command_output("nvpmodel", "-q"),
        "kernel": f"{system.sysname} {system.release}",
        "machine": system.machine,
        "hostname": system.nodename,
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "cpus": os.cpu_count() or 0,
        "affinity": sorted(os.sched_getaffinity(0)),
        "pointer_bits": 64 if sys.maxsize > 2**32 else 32,
        "unix_time_s": time.time(),
        "power_sensors": power_sensors(sysfs),
        "state": read_state(sysfs),
    }
