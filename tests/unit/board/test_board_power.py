"""Every meter on captured text and on sysfs trees on disk."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgekd.board.power
from edgekd.board.measuring.agent_archive import ON_HOST
from edgekd.board.power import hwmon, ina238, ina3221, pmic_read_adc, rapl, tegrastats
from edgekd.board.power.meters import choose, reader_of
from edgekd.board.power.source import MeterFailure

CAPTURED = Path(__file__).parent / "captured"
FOLDER = Path(edgekd.board.power.__file__).parent


def write(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def jetpack6(root: Path, bus: str, rails: dict[int, tuple[str, int, int]], number: int = 3) -> Path:
    """An INA3221 as JetPack 5 to 7 show it, with the shunt voltages and their sum that are no rails."""
    base = f"bus/i2c/drivers/ina3221/{bus}/hwmon/hwmon{number}"
    files: dict[str, object] = {f"{base}/in7_label": "sum of shunt voltages", f"{base}/in7_input": 12}
    for n, (label, millivolts, milliamperes) in rails.items():
        files |= {
            f"{base}/in{n}_label": label,
            f"{base}/in{n}_input": millivolts,
            f"{base}/curr{n}_input": milliamperes,
        }
        files |= {f"{base}/in{n + 3}_input": milliamperes * 5, f"{base}/curr{n}_crit": 32760}
    return write(root, files)


def jetpack4(root: Path, bus: str, rails: list[tuple[str, int, int]]) -> Path:
    base = f"bus/i2c/drivers/ina3221x/{bus}/iio:device0"
    files: dict[str, object] = {}
    for n, (label, millivolts, milliamperes) in enumerate(rails):
        files |= {f"{base}/rail_name_{n}": label, f"{base}/in_voltage{n}_input": millivolts}
        files |= {f"{base}/in_current{n}_input": milliamperes, f"{base}/warn_current_limit_{n}": "32760 ma"}
    return write(root, files)


def orin_nano(root: Path) -> Path:
    rails = {1: ("VDD_IN", 5000, 965), 2: ("VDD_CPU_GPU_CV", 5000, 104), 3: ("VDD_SOC", 5000, 295)}
    return jetpack6(root, "1-0040", rails)


def agx_orin(root: Path) -> Path:
    jetpack6(
        root, "1-0040", {1: ("VDD_GPU_SOC", 20000, 100), 2: ("VDD_CPU_CV", 20000, 50), 3: ("VIN_SYS_5V0", 5000, 800)}
    )
    return jetpack6(root, "1-0041", {1: ("NC", 0, 0), 2: ("VDDQ_VDD2_1V8AO", 5000, 200), 3: ("NC", 0, 0)}, number=4)


@pytest.mark.parametrize(
    ("make", "rail", "grade", "watts"),
    [
        (orin_nano, "VDD_IN", "B", 4.825),
        (agx_orin, "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0", "C", 7.0),
        (
            lambda root: jetpack4(
                root, "6-0040", [("POM_5V_IN", 5080, 400), ("POM_5V_GPU", 5080, 20), ("POM_5V_CPU", 5080, 90)]
            ),
            "POM_5V_IN",
            "B",
            2.032,
        ),
    ],
    ids=["orin-nano", "agx-orin", "jetson-nano"],
)
def test_ina3221_reads_the_right_total_of_each_module(tmp_path, make, rail, grade, watts):
    root = make(tmp_path)
    source = ina3221.find(root)
    assert (source.rail, source.grade) == (rail, grade)
    assert ina3221.reader(source, root)() == pytest.approx(watts)
    assert 0 < source.resolution_w < 0.25 * watts + 0.5


def test_a_channel_that_is_switched_off_is_skipped(tmp_path):
    root = orin_nano(tmp_path)
    # What cannot be read is as good as ENODATA: a directory in the file's place gives an OSError too.
    off = root / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr2_input"
    off.unlink()
    off.mkdir()
    source = ina3221.find(root)
    assert source.rail == "VDD_IN"
    agx = agx_orin(tmp_path / "agx")
    gone = agx / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in2_input"
    gone.unlink()
    assert ina3221.find(agx).rail == "VDD_GPU_SOC + VIN_SYS_5V0"


def test_no_ina3221_and_one_without_a_rail(tmp_path):
    assert ina3221.find(tmp_path) is None
    assert ina3221.find(jetpack6(tmp_path, "1-0040", {1: ("NC", 1, 1)})) is None


def test_thors_input_is_preferred_to_the_sum_of_rails(tmp_path):
    root = agx_orin(tmp_path)
    base = "bus/i2c/drivers/ina238/2-0044/hwmon/hwmon5"
    write(root, {f"{base}/power1_input": 41_250_000, f"{base}/in1_input": 19_900, f"{base}/curr1_input": 2073})
    source, problems = choose("auto", root)
    assert (source.meter, source.rail, source.grade, problems) == ("ina238", "VIN", "B", [])
    assert reader_of(source, root)() == pytest.approx(41.25)
    named, _ = choose("ina3221", root)
    assert named.grade == "C"
    assert ina238.find(tmp_path / "nothing") is None


def chip(root: Path, number: int, name: str, microwatts: int, label: str = "") -> None:
    base = f"class/hwmon/hwmon{number}"
    write(root, {f"{base}/name": name, f"{base}/power1_input": microwatts})
    if label:
        write(root, {f"{base}/power1_label": label})


def test_hwmon_is_grade_b_only_where_a_label_names_the_input(tmp_path):
    chip(tmp_path, 0, "ina226", 2_345_000)
    source = hwmon.find(tmp_path)
    assert (source.grade, hwmon.reader(source, tmp_path)()) == ("C", pytest.approx(2.345))
    chip(tmp_path, 1, "ina260", 5_100_000, "VIN board")
    chip(tmp_path, 2, "ucsi_source_psy_1", 15_000_000)
    source = hwmon.find(tmp_path)
    assert source.grade == "B"
    assert hwmon.reader(source, tmp_path)() == pytest.approx(5.1)


def test_several_hwmon_chips_need_a_name(tmp_path):
    chip(tmp_path, 0, "ina226", 2_345_000)
    chip(tmp_path, 1, "ina219", 1_000_000)
    with pytest.raises(MeterFailure, match="hwmon:NAME"):
        choose("hwmon", tmp_path)
    source, _ = choose("hwmon:ina219", tmp_path)
    assert reader_of(source, tmp_path)() == pytest.approx(1.0)
    chosen, problems = choose("auto", tmp_path)
    assert chosen is None
    assert "several" in problems[0]


def powercap(root: Path, microjoules: int) -> Path:
    base = "class/powercap/intel-rapl:0"
    write(root, {f"{base}/name": "package-0", f"{base}/energy_uj": microjoules, f"{base}/max_energy_range_uj": 1000})
    return write(root, {"class/powercap/intel-rapl:0:0/name": "core", "class/powercap/intel-rapl:0:0/energy_uj": 5})


def test_rapl_counts_on_over_a_wrap(tmp_path):
    root = powercap(tmp_path, 900)
    source = rapl.find(root)
    assert (source.rail, source.grade, source.counts) == ("package-0", "C", "joules")
    read = rapl.reader(source, root)
    assert read() == 0
    powercap(root, 980)
    assert read() == pytest.approx(80e-6)
    powercap(root, 30)
    assert read() == pytest.approx(130e-6)
    assert rapl.find(tmp_path / "nothing") is None


@given(st.integers(1, 2**40), st.lists(st.floats(0, 0.99), min_size=1, max_size=40), st.floats(0, 1))
def test_a_counter_that_wraps_gives_the_same_as_one_that_does_not(count_range, shares, start):
    steps = [int(share * count_range) for share in shares]
    place, got = int(start * (count_range - 1)), 0
    for step in steps:
        now = (place + step) % count_range
        got += rapl.counted(place, now, count_range)
        place = now
    assert got == sum(steps)
    with pytest.raises(ValueError, match="beyond its range"):
        rapl.counted(0, count_range + 1, count_range)


@pytest.mark.parametrize(
    ("name", "rails", "total", "grade"),
    [
        (
            "tegrastats_jp4_tx2nx.txt",
            {"VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI", "VDD_IN", "VDD_SYS_CPU", "VDD_SYS_DDR"},
            5.297,
            "B",
        ),
        ("tegrastats_jp6_orin_nano_root.txt", {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}, 12.479, "B"),
        ("tegrastats_jp6_orin_nano.txt", {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}, 4.824, "B"),
        ("tegrastats_jp7_agx_orin.txt", {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"}, 13.907, "C"),
    ],
)
def test_tegrastats_in_all_its_formats(name, rails, total, grade, tmp_path, monkeypatch):
    text = (CAPTURED / name).read_text()
    found = tegrastats.rails_of(text)
    assert set(found) == rails
    # The program itself, played by a script that repeats what was captured.
    program = tmp_path / "tegrastats"
    program.write_text(f"#!/bin/sh\nwhile cat '{CAPTURED / name}'; do sleep 0.02; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    source, _ = choose("tegrastats", tmp_path)
    assert source.grade == grade
    assert reader_of(source, tmp_path)() == pytest.approx(total)


def test_tegrastats_without_rails():
    assert tegrastats.rails_of("RAM 20642/62817MB (lfb 1x512kB) CPU [1%@102,off] GR3D_FREQ @[1000,1000,1000]") == {}


def test_tegrastats_that_ends_is_a_failure(tmp_path, monkeypatch):
    program = tmp_path / "tegrastats"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(MeterFailure, match="ended"):
        choose("tegrastats", tmp_path)


def test_pi_5_rails_and_their_sum(tmp_path, monkeypatch):
    text = (CAPTURED / "pmic_read_adc.txt").read_text()
    rails = pmic_read_adc.rails_of(text)
    assert len(rails) == 12
    assert "EXT5V" not in rails
    assert "BATT" not in rails
    assert rails["VDD_CORE"] == pytest.approx(0.94657990 * 0.72097620)
    program = tmp_path / "vcgencmd"
    program.write_text(f"#!/bin/sh\n[ \"$1\" = pmic_read_adc ] && cat '{CAPTURED / 'pmic_read_adc.txt'}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    source, _ = choose("auto", tmp_path)
    assert (source.meter, source.grade) == ("pmic_read_adc", "C")
    assert reader_of(source, tmp_path)() == pytest.approx(sum(rails.values()))
    assert 1.0 < sum(rails.values()) < 3.0


def test_a_meter_asked_for_that_is_not_here_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in ("ina3221", "ina238", "hwmon", "rapl"):
        with pytest.raises(MeterFailure, match=f"no {name}"):
            choose(name, tmp_path)
    with pytest.raises(MeterFailure, match="no meter 'ina999'"):
        choose("ina999", tmp_path)
    assert choose("auto", tmp_path) == (None, [])


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_what_runs_on_the_board_is_python_3_9_and_the_standard_library(path):
    if path.name in ON_HOST:
        pytest.skip("runs on the host")
    for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 9))):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= set(sys.stdlib_module_names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1 or node.module.split(".")[0] in sys.stdlib_module_names
