"""A board's condition, judged from its survey: pure functions, one a finding."""

from __future__ import annotations

import re
from collections.abc import Callable

from edgekd.board.examination.survey import Survey
from edgekd.core import board_output as parse
from edgekd.core.board_output import printable
from edgekd.records import DeviceProfile
from edgekd.records.board import CheckItem, Status

LEAST_RAM_BYTES = 256 * 2**20
LEAST_DISK_BYTES = 512 * 2**20
CLOCK_SKEW_WARNING_S = 60.0
WARM_CELSIUS = 70.0
_L4T = re.compile(r"R(\d+) \(release\), REVISION: ([\d.]+)")
_NV_MODE = re.compile(r"NV Power Mode: *([\w .-]{1,60})")


def is_emulated(survey: Survey) -> bool:
    """Whether the board is a program: QEMU runs its processes, or its device tree is that of QEMU's own machine."""
    model = survey.text("model").lower()
    return "qemu" in survey.text("executable") or "dummy-virt" in model or "qemu" in model


def item(name: str, status: Status, found: str, advice: str = "") -> CheckItem:
    """A finding; what the board said is made safe to print."""
    return CheckItem(name=name, status=status, found=printable(found, 400), advice=advice)


def identity(survey: Survey) -> dict[str, object]:
    """What a profile knows its boards by, as in the facts of a measurement."""
    return {
        "device_tree_model": parse.parse_device_tree_model(survey.text("model")),
        "ram_bytes": parse.parse_meminfo(survey.text("meminfo")).get("MemTotal"),
        "emulated": is_emulated(survey),
    }


def model_item(survey: Survey, profile: DeviceProfile | None, matched: bool | None, why: str) -> CheckItem:
    """What the board is, and whether that is what the profile describes."""
    model = parse.parse_device_tree_model(survey.text("model"))
    cpu = parse.parse_cpu_model(survey.text("cpuinfo"))
    found = model or f"no device-tree model; CPU: {cpu or 'unknown'}"
    if is_emulated(survey):
        return item(
            "board",
            "warn",
            f"{found}, emulated by QEMU",
            "its latencies are never judged: rehearse here, measure there",
        )
    if matched is None:
        return item("board", "pass", found)
    assert profile is not None
    if matched:
        return item("board", "pass", f"{found}: of profile {profile.name}'s kind")
    return item(
        "board",
        "warn",
        f"{found}: {why}",
        "deploying works, but latency, memory and energy stay not_measured under that profile: name another with "
        "--profile (see `edgekd profile list`) or write one for this board",
    )


def jetson_items(survey: Survey, profile: DeviceProfile | None) -> list[CheckItem]:
    """JetPack and power mode (by name, not id) of a Jetson; nothing on other boards."""
    release = survey.text("l4t")
    if not release and not survey.text("nvpmodel"):
        return []
    found = _L4T.search(release)
    linux = f"L4T {found.group(1)}.{found.group(2)}" if found else "L4T release unknown"
    jetpack = survey.text("jetpack")
    items = [item("JetPack", "pass", f"JetPack {jetpack} ({linux})" if jetpack else linux)]
    mode = _NV_MODE.search(survey.text("nvpmodel"))
    if mode is None:
        return [
            *items,
            item("power mode", "warn", "nvpmodel does not tell it", "run `sudo nvpmodel -q` there and note the mode"),
        ]
    name = mode.group(1).strip()
    wanted = profile.operating_point.power_mode if profile else None
    if wanted in (None, "default", name):
        return [*items, item("power mode", "pass", name)]
    advice = f"profile figures stand for {wanted}: list the modes in /etc/nvpmodel.conf, then sudo nvpmodel -m <its id>"
    return [*items, item("power mode", "warn", f"{name}, not {wanted}", advice)]


def _architecture(survey: Survey) -> CheckItem:
    machine, bits, dpkg = survey.text("machine"), survey.text("long_bits"), survey.text("dpkg_architecture")
    features = parse.parse_cpu_features(survey.text("cpuinfo"))
    telling = [name for name in ("asimd", "asimddp", "asimdhp", "i8mm", "sve", "neon", "avx2", "avx512_vnni", "fma")]
    shown = [name for name in telling if name in features]
    found = f"kernel {machine}, userland {dpkg or '?'} ({bits or '?'}-bit); ISA: {', '.join(shown) or 'none told'}"
    if bits == "32" and machine in ("aarch64", "x86_64"):
        advice = "32-bit system on a 64-bit CPU: slower kernels and only old tflite-runtime; install the 64-bit image"
        return item("architecture", "warn", found, advice)
    return item("architecture", "pass", found)


def _system(survey: Survey) -> CheckItem:
    system = parse.parse_os_release(survey.text("os_release")) or "unknown system"
    libc = survey.lines("libc")[:1] or ["libc unknown"]
    return item("system", "pass", f"{system}, {survey.text('kernel')}, {libc[0]}")


def _memory(survey: Survey) -> CheckItem:
    memory = parse.parse_meminfo(survey.text("meminfo"))
    total, available = memory.get("MemTotal"), memory.get("MemAvailable")
    if total is None or available is None:
        return item("memory", "warn", "/proc/meminfo does not tell it", "peak memory may not be measurable")
    swapped = memory.get("SwapTotal", 0) - memory.get("SwapFree", 0)
    found = f"{available / 2**20:.0f} of {total / 2**20:.0f} MiB available, {swapped / 2**20:.0f} MiB swapped out"
    if available < LEAST_RAM_BYTES:
        return item("memory", "warn", found, "the runtime needs some 200 MiB: stop what is not needed")
    return item("memory", "pass", found)


def _disk(survey: Survey) -> CheckItem:
    free = parse.parse_df(survey.text("disk"))
    if free is None:
        return item("disk", "warn", "df does not tell the free space", "install coreutils there")
    found = f"{free / 2**20:.0f} MiB free for edgekd"
    if free < LEAST_DISK_BYTES:
        advice = "a runtime bundle takes up to 400 MiB while it is installed: free some, or set EDGEKD_BOARD_HOME"
        return item("disk", "warn", found, advice)
    return item("disk", "pass", found)


def _clock(survey: Survey) -> CheckItem:
    there = parse.parse_integer(survey.text("clock"))
    if there is None:
        return item("clock", "warn", "it does not tell the time", "")
    low, high = survey.asked_at_s - 1, survey.answered_at_s + 1
    skew = there - high if there > high else min(0.0, there - low)
    if abs(skew) > CLOCK_SKEW_WARNING_S:
        return item(
            "clock",
            "warn",
            f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine",
            "edgekd does not mind (it uses the board's monotonic clock), but logs there mislead: enable time "
            "synchronisation (timedatectl set-ntp true)",
        )
    return item("clock", "pass", f"off by {skew:.0f} s" if skew else "agrees with this machine within a few seconds")


def _rights(survey: Survey) -> CheckItem:
    identity, sudo = survey.text("identity"), survey.text("sudo")
    groups = set(re.findall(r"\(([\w-]+)\)", identity))
    root = "uid=0(" in identity
    missing = []
    if survey.text("vcgencmd") and "throttled=" not in survey.text("throttled") and not root:
        missing.append("vcgencmd is refused: throttling stays unknown (sudo usermod -aG video $USER, then log in anew)")
    if not root and sudo != "passwordless" and not survey.text("governor_writable") and survey.text("governors"):
        missing.append("governor and clocks cannot be pinned without root (a sudoers line without password, or root)")
    if any(line.startswith("unreadable") for line in survey.lines("rapl")) and not root:
        missing.append("RAPL is for root only: no CPU energy (sudo chmod a+r /sys/class/powercap/*/energy_uj)")
    said = "root" if root else f"groups {', '.join(sorted(groups)[:12]) or 'unknown'}; sudo {sudo or 'absent'}"
    if missing:
        return item("rights", "warn", said, "; ".join(missing))
    return item("rights", "pass", said)


def _governor(survey: Survey) -> CheckItem:
    governors = survey.lines("governors")
    clocks = [parse.parse_clock_mhz(line) for line in survey.lines("clocks")]
    highest = [parse.parse_clock_mhz(line) for line in survey.lines("max_clocks")]
    if not governors:
        return item("governor", "pass", "no frequency scaling is visible there")
    now, most = max((c for c in clocks if c), default=0.0), max((c for c in highest if c), default=0.0)
    found = f"{', '.join(governors)}; fastest core at {now:.0f} of {most:.0f} MHz"
    if governors == ["powersave"] and most and now < 0.9 * most:
        return item("governor", "warn", found, "latencies will be those of the lowest clock: choose ondemand")
    return item("governor", "pass", found)


def _temperature(survey: Survey) -> CheckItem:
    zones = {str(i): tuple(line.rsplit(" ", 1)) for i, line in enumerate(survey.lines("thermal")) if " " in line}
    celsius = parse.parse_temperatures({zone: (pair[0], pair[1]) for zone, pair in zones.items()})
    throttling = parse.parse_throttled(survey.text("throttled"))
    hottest = max(celsius.values(), default=None)
    found = "no thermal zone is visible" if hottest is None else f"hottest zone {hottest:.0f} °C"
    if throttling is None:
        found += "; throttling is not told"
    elif throttling.now:
        cause = "under-voltage" if throttling.undervoltage else "heat or a frequency cap"
        advice = "figures would not be burst figures: use the right power supply, cool it, then reboot"
        return item("temperature", "warn", f"{found}; held back now by {cause}", advice)
    elif throttling.since_boot:
        return item("temperature", "warn", f"{found}; was held back since boot", "check power supply and cooling")
    else:
        found += "; not throttled since boot"
    if hottest is not None and hottest > WARM_CELSIUS:
        return item("temperature", "warn", found, "let it cool down, or fit a heat sink: it will throttle soon")
    return item("temperature", "pass", found)


def _load(survey: Survey) -> CheckItem:
    load = parse.parse_loadavg(survey.text("loadavg"))
    if load is None:
        return item("load", "pass", "not told")
    cores = max(1, len(re.findall(r"^processor\s*:", survey.text("cpuinfo"), re.MULTILINE)))
    found = f"load average {load[0]:.2f} on {cores} cores"
    if load[0] > 0.5 * cores:
        return item("load", "warn", found, "other work disturbs what is measured: stop it, or expect `inconclusive`")
    return item("load", "pass", found)


def _sensors(survey: Survey) -> CheckItem:
    lines = [*survey.lines("hwmon"), *(f"{line} rapl" for line in survey.lines("rapl"))]
    readable = sorted({line.split(" ")[1] for line in lines if line.startswith("readable ") and line.count(" ") > 1})
    hidden = sorted({line.split(" ")[1] for line in lines if line.startswith("unreadable ") and line.count(" ") > 1})
    if readable:
        return item("power sensors", "pass", ", ".join(readable[:20]))
    if hidden:
        advice = "power and energy stay not_measured: the rights above say how to read them, or use an external meter"
        return item("power sensors", "warn", f"not readable: {', '.join(hidden[:20])}", advice)
    advice = "power and energy need an external meter"
    return item("power sensors", "pass", f"none; {advice}")


def _tools(survey: Survey) -> CheckItem:
    missing = [name for name in survey.lines("tools") if name != "-"]
    if missing or "-" not in survey.lines("tools"):
        return item("tools", "fail", f"missing: {', '.join(missing)}", "install coreutils, tar and findutils there")
    return item("tools", "pass", "tar, sha256sum and the rest are there")


PLAIN: tuple[Callable[[Survey], CheckItem], ...] = (
    _architecture,
    _system,
    _memory,
    _disk,
    _clock,
    _rights,
    _governor,
    _temperature,
    _load,
    _sensors,
    _tools,
)
