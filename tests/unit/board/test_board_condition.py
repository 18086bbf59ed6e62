"""A board's condition, judged from captured answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgekd.board.examination.survey import Survey
from edgekd.board.measuring.condition import PLAIN, identity, is_emulated, jetson_items, model_item

PI4 = {
    "model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "machine": "aarch64\n",
    "kernel": "Linux 6.6.51+rpt-rpi-v8\n",
    "long_bits": "64\n",
    "dpkg_architecture": "arm64\n",
    "os_release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "libc": "glibc 2.36\n",
    "cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\nprocessor\t: 1\n",
    "meminfo": "MemTotal: 3882836 kB\nMemAvailable: 3300000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
    "loadavg": "0.02 0.05 0.01 1/150 1234\n",
    "disk": "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/root 30000000 9000000 20000000 31% /\n",
    "identity": "uid=1000(pi) gid=1000(pi) groups=1000(pi),27(sudo),44(video)\n",
    "sudo": "passwordless\n",
    "governors": "ondemand\n",
    "clocks": "1800000\n600000\n",
    "max_clocks": "1800000\n1800000\n",
    "thermal": "cpu-thermal 48312\n",
    "vcgencmd": "/usr/bin/vcgencmd\n",
    "throttled": "throttled=0x0\n",
    "tools": "-\n",
    "clock": "1000\n",
    "executable": "/usr/bin/dash\n",
}


def survey(**changes: str) -> Survey:
    return Survey({**PI4, **changes}, 1000.0, 1001.0)


def judged(**changes: str) -> dict[str, tuple[str, str, str]]:
    taken = survey(**changes)
    return {found.name: (found.status, found.found, found.advice) for found in (check(taken) for check in PLAIN)}


def test_a_good_board_passes_everything():
    found = judged()
    assert {name: status for name, (status, _, _) in found.items() if status != "pass"} == {}
    assert "1800 of 1800 MHz" in found["governor"][1]
    assert "hottest zone 48 °C; not throttled since boot" in found["temperature"][1]
    assert not is_emulated(survey())


@pytest.mark.parametrize(
    ("changes", "name", "status", "words"),
    [
        ({"long_bits": "32", "dpkg_architecture": "armhf"}, "architecture", "warn", "64-bit image"),
        ({"meminfo": "MemTotal: 500000 kB\nMemAvailable: 90000 kB\n"}, "memory", "warn", "stop what is not needed"),
        ({"meminfo": ""}, "memory", "warn", "may not be measurable"),
        ({"disk": "x\n/dev/root 30000 9000 20000 31% /\n"}, "disk", "warn", "EDGEKD_BOARD_HOME"),
        ({"clock": "8200"}, "clock", "warn", "monotonic clock"),
        ({"clock": "-6200"}, "clock", "warn", "monotonic clock"),
        ({"clock": "later"}, "clock", "warn", ""),
        ({"throttled": "VCHI initialization failed"}, "rights", "warn", "usermod -aG video"),
        ({"sudo": "password"}, "rights", "warn", "cannot be pinned"),
        ({"rapl": "unreadable package-0"}, "rights", "warn", "RAPL"),
        ({"rapl": "unreadable package-0"}, "power sensors", "warn", "external meter"),
        ({"hwmon": "readable ina3221 curr1_input"}, "power sensors", "pass", ""),
        ({"governors": "powersave", "clocks": "600000"}, "governor", "warn", "ondemand"),
        ({"throttled": "throttled=0x50005"}, "temperature", "warn", "power supply"),
        ({"throttled": "throttled=0x50000"}, "temperature", "warn", "cooling"),
        ({"thermal": "cpu-thermal 79000"}, "temperature", "warn", "heat sink"),
        ({"loadavg": "3.1 1 1 1/1 1"}, "load", "warn", "inconclusive"),
        ({"tools": "sha256sum\n-"}, "tools", "fail", "coreutils"),
        ({"tools": ""}, "tools", "fail", "coreutils"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(changes, name, status, words):
    found = judged(**changes)[name]
    assert found[0] == status
    assert words in found[2]


def test_nothing_a_board_says_reaches_a_terminal_raw():
    hostile = "\x1b]0;owned\x07\x1b[31m" * 2000
    for check in PLAIN:
        for name in PI4:
            found = check(survey(**{name: hostile}))
            assert "\x1b" not in found.found + found.advice
            assert len(found.found) < 500


def profile(power_mode: str = "default") -> SimpleNamespace:
    return SimpleNamespace(name="x", title="X", operating_point=SimpleNamespace(power_mode=power_mode))


def test_a_jetson_tells_its_power_mode_by_name():
    jetson = {
        "l4t": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        "jetpack": "6.2+b77",
        "nvpmodel": "NV Power Mode: 15W\n0\n",
    }
    found = {item.name: item for item in jetson_items(survey(**jetson), profile("MAXN_SUPER"))}
    assert found["JetPack"].found == "JetPack 6.2+b77 (L4T 36.4.3)"
    assert (found["power mode"].status, found["power mode"].found) == ("warn", "15W, not MAXN_SUPER")
    assert jetson_items(survey(**jetson), profile("15W"))[1].status == "pass"
    assert jetson_items(survey(), None) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"executable": "/usr/libexec/qemu-binfmt/aarch64-binfmt-P\n"},
        {"executable": "/usr/bin/qemu-aarch64-static\n"},
        {"model": "linux,dummy-virt\0"},
        {"model": "Raspberry Pi 4 Model B Rev 1.4 (emulated by QEMU)\0"},
    ],
)
def test_an_emulated_board_is_known_as_one(changes):
    assert is_emulated(survey(**changes))
    assert identity(survey(**changes))["emulated"]
    found = model_item(survey(**changes), None, None, "")
    assert found.status == "warn"
    assert "never judged" in found.advice
