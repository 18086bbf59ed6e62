"""Parsers of board output, on captured text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core import board_output as parsers


def test_throttled_bits():
    # 0x50005: under-voltage and throttled now, and both since boot (Raspberry Pi documentation's own example).
    found = parsers.parse_throttled("throttled=0x50005\n")
    assert found is not None
    assert (found.undervoltage, found.frequency_capped, found.throttled, found.soft_temperature_limit) == (
        True,
        False,
        True,
        False,
    )
    assert found.since_boot
    assert found.now


@pytest.mark.parametrize(
    ("text", "now", "since"), [("0x0", False, False), ("0x50000", False, True), ("0x8", True, False)]
)
def test_throttled_now_and_since_boot(text, now, since):
    found = parsers.parse_throttled(f"throttled={text}")
    assert found is not None
    assert (found.now, found.since_boot) == (now, since)


@pytest.mark.parametrize(
    "text", [None, "", "VCHI initialization failed", "throttled=", "throttled=0xZZ", "x throttled=0x0"]
)
def test_what_is_not_throttled_output_is_unknown(text):
    assert parsers.parse_throttled(text) is None


def test_temperatures():
    zones = {
        "thermal_zone0": ("cpu-thermal", "48312"),
        "thermal_zone1": ("gpu-thermal", "-256000"),
        "thermal_zone2": ("cpu-thermal", "50000"),
        "thermal_zone3": ("", "41000"),
        "thermal_zone4": ("tj-thermal", "oops"),
    }
    assert parsers.parse_temperatures(zones) == {"cpu-thermal": 50.0, "thermal_zone3": 41.0}


def test_memory_of_a_process_and_of_the_board():
    status = "Name:\tpython3\nVmPeak:\t  300000 kB\nVmHWM:\t   51234 kB\nVmRSS:\t   49000 kB\nThreads:\t3\n"
    assert parsers.parse_process_memory(status) == parsers.ProcessMemory(49000 * 1024, 51234 * 1024)
    assert parsers.parse_process_memory("Name:\tpython3\n") is None
    meminfo = (
        "MemTotal:        3884384 kB\nMemFree:          123 kB\nActive(anon):     456 kB\nHugePages_Total:       0\n"
    )
    assert parsers.parse_meminfo(meminfo) == {
        "MemTotal": 3884384 * 1024,
        "MemFree": 123 * 1024,
        "Active(anon)": 456 * 1024,
    }


def test_board_identity():
    assert parsers.parse_device_tree_model("Raspberry Pi 4 Model B Rev 1.4\0") == "Raspberry Pi 4 Model B Rev 1.4"
    assert parsers.parse_device_tree_model("\0") is None
    release = 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
    assert parsers.parse_os_release(release) == "Debian GNU/Linux 12 (bookworm)"
    arm = "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n"
    assert parsers.parse_cpu_model(arm) == "implementer 0x41 part 0xd08"
    assert parsers.parse_cpu_features(arm) == ("fp", "asimd", "evtstrm", "crc32")
    x86 = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2\n"
    assert (parsers.parse_cpu_model(x86), parsers.parse_cpu_features(x86)) == ("AMD EPYC", ("fpu", "avx2"))


def test_clock_load_libc_and_disk():
    assert parsers.parse_clock_mhz("1500000\n") == 1500.0
    assert parsers.parse_clock_mhz("<unknown>") is None
    assert parsers.parse_loadavg("0.52 0.41 0.30 1/234 5678\n") == (0.52, 0.41, 0.30)
    assert parsers.parse_loadavg("nan 0 0") is None
    assert parsers.parse_glibc("glibc 2.36") == (2, 36)
    assert parsers.parse_glibc("musl 1.2") is None
    df = "Filesystem 1024-blocks    Used Available Capacity Mounted on\n/dev/root 30358548 5123456  23958123   18% /\n"
    assert parsers.parse_df(df) == 23958123 * 1024
    assert parsers.parse_df("df: not found") is None


def test_escape_codes_are_taken_out():
    assert parsers.printable("\x1b]0;title\x07\x1b[31mred\x1b[0m\x00 \x9b31m ok\r\n") == "red 31m ok\n"


@given(st.text(), st.integers(1, 50))
def test_nothing_printable_is_dangerous_or_long(text, limit):
    shown = parsers.printable(text, limit)
    assert len(shown) <= limit + 2
    assert not any(ord(c) < 32 and c not in "\n\t" or 127 <= ord(c) < 160 for c in shown)


@given(st.text(max_size=300))
def test_no_text_breaks_a_parser(text):
    parsers.parse_throttled(text)
    parsers.parse_integer(text)
    parsers.parse_millicelsius(text)
    parsers.parse_clock_mhz(text)
    parsers.parse_process_memory(text)
    parsers.parse_loadavg(text)
    parsers.parse_device_tree_model(text)
    parsers.parse_os_release(text)
    parsers.parse_cpu_model(text)
    parsers.parse_cpu_features(text)
    parsers.parse_glibc(text)
    parsers.parse_df(text)
