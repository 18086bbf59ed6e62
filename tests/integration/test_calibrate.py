"""Calibrating a board: over SSH, interrupted and resumed; this machine with a power meter; and what is refused."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from edgekd.errors import BoardError
from edgekd.load import dump_toml, load_profile
from edgekd.records import Match

pytestmark = pytest.mark.slow

CODE = "from edgekd.cli import main; main()"
ARGUMENTS = ["calibrate", "--students", "12", "--minutes", "0.1"]
LOCAL = [*ARGUMENTS, "--profile", "host", "--board", "local"]
ENVIRONMENT = {"COLUMNS": "200", "OMP_NUM_THREADS": "1"}
WATTS = 4.0


def edgekd(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, **ENVIRONMENT},
    )


@pytest.fixture
def loopback(sshd, tmp_path, monkeypatch):
    """An sshd whose board has a device-tree model, and the profile of that kind of board."""
    tree = tmp_path / "sys/firmware/devicetree/base"
    tree.mkdir(parents=True)
    (tree / "model").write_text("Loopback Board Rev 1.0\0")
    monkeypatch.setenv("EDGEKD_SYSFS", str(tmp_path / "sys"))
    profile = load_profile("host").model_copy(
        update={"name": "loopback", "aliases": (), "match": Match(device_tree_models=("Loopback Board",))}
    )
    (tmp_path / "loopback.toml").write_text(dump_toml(profile))
    return sshd


def test_over_ssh_it_goes_on_where_it_was_interrupted_and_writes_a_profile_that_works(loopback, tmp_path):
    arguments = [*ARGUMENTS, "--profile", "./loopback.toml", "--board", loopback.board, "--runtime", "onnx"]
    arguments += ["--scheme", "fp32", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    rounds = tmp_path / ".loopback-calibrated.rounds.jsonl"
    deadline = time.monotonic() + 240
    while not (rounds.is_file() and len(rounds.read_text().splitlines()) > 5):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not (tmp_path / "loopback-calibrated.toml").exists()
    kept = rounds.read_text().splitlines()
    rounds.write_text("\n".join(kept) + '\n{"student": 0, "rou')
    result = edgekd(*arguments, cwd=tmp_path)
    if result.returncode == 4 and "measured well enough" in result.stderr:
        pytest.skip("this machine is too busy for a calibration: " + result.stderr[-300:])
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    timed = sum(sample["rounds"] for sample in found["samples"]) + found["throttled_rounds"]
    assert timed >= len(kept) - 1
    assert not list(tmp_path.glob(".loopback*"))
    model = found["latency_model"]
    assert (model["provenance"], model["runtime"], model["scheme"]) == ("measured", "onnx", "fp32")
    assert "onnxruntime" in model["runtime_version"]
    assert found["board"].startswith(loopback.board)
    assert "Loopback Board" in found["board"]
    assert model["held_out_mape_percent"] > 0
    value, low, high = model["tails"]["p90"]
    assert 1 <= low <= value <= high
    assert len(model["held_out"]) == sum(sample["role"] == "held_out" for sample in found["samples"])
    assert (tmp_path / "loopback-calibrated.svg").read_text().lstrip().startswith("<?xml")
    shown = json.loads(edgekd("profile", "show", "./loopback-calibrated.toml", "--json", cwd=tmp_path).stdout)
    first = shown["latency_models"][0]
    assert {"runtime", "scheme", "threads", "provenance", "samples", "held_out_mape_percent", "interval_coverage"} <= (
        set(first)
    )
    assert first["samples"] == model["samples"]
    again = edgekd(*arguments, cwd=tmp_path)
    assert again.returncode == 3
    assert "--overwrite" in again.stderr


class Silent:
    """Progress that nobody reads."""

    def __init__(self):
        self.warned = []

    def stage(self, name, detail=""):
        pass

    def update(self, message):
        pass

    def warn(self, message):
        self.warned.append(message)


def test_with_a_meter_it_learns_energy_too_and_predict_says_it_with_its_interval(tmp_path, monkeypatch):
    from edgekd.pipeline.boards.calibrate import CalibrateOptions, calibrate
    from edgekd.pipeline.boards.calibration_rounds import write_student
    from edgekd.pipeline.boards.timing import BoardAddress, EnergyReadings
    from edgekd.pipeline.files.predict import predict_file

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))
    lines = [f"{0.02 * step:.3f},{WATTS + 0.3 * math.sin(step / 7):.4f}" for step in range(3000)]
    Path("trace.csv").write_text("seconds,watts\n" + "\n".join(lines) + "\n")
    options = CalibrateOptions(
        "host",
        BoardAddress("local"),
        minutes=0.05,
        students=12,
        out=Path("here.toml"),
        # The trace is a made-up one: that others keep this machine busy does not touch it.
        energy=EnergyReadings("replay:trace.csv", 0.6, background="declared"),
    )
    progress = Silent()
    try:
        calibration = calibrate(options, progress)
    except BoardError as error:
        if "measured well enough" not in str(error):
            raise
        pytest.skip(f"this machine is too busy for a calibration: {error}")
    energy = calibration.energy_model
    assert energy is not None, (progress.warned, calibration.energy)
    assert energy.samples == sum(not one.problems for one in calibration.energy)
    assert energy.grade == "D"
    assert all(one.mean_w == pytest.approx(WATTS, rel=0.1) for one in calibration.energy)
    written = tomllib.loads(Path("here.toml").read_text())
    assert written["energy_models"][0]["watts"] == pytest.approx(energy.watts)
    from edgekd.core.sampled_students import sampled_students

    student = sampled_students(12, 0)[3]
    write_student(student, "wi8_ai8", Path("student.tflite"))
    found = predict_file(Path("student.tflite"), "./here.toml")
    assert found.energy == "predicted"
    low, high = found.energy_interval_mj
    assert low < found.energy_mj < high
    # What else runs here stretches the inferences of the energy pass, and only ever adds to what each draws.
    assert found.energy_mj > 0.7 * WATTS * found.latency_ms
    unknown = predict_file(Path("student.tflite"), "host")
    assert (unknown.energy_mj, unknown.energy) == (None, "not_measured")
    shown = edgekd("predict", "student.tflite", "--profile", "./here.toml", cwd=tmp_path)
    assert "mJ" in shown.stdout
    assert "energy" in edgekd("predict", "student.tflite", "--profile", "host", cwd=tmp_path).stdout


def test_other_boards_shipped_files_and_meters_that_are_none_are_refused(tmp_path):
    other = edgekd(*ARGUMENTS, "--profile", "rpi4", "--board", "local", cwd=tmp_path)
    assert other.returncode == 3
    assert "another's name" in other.stderr
    shipped = Path(__file__).resolve().parents[2] / "device_profiles" / "host.toml"
    before = shipped.read_text()
    taken = edgekd(*LOCAL, "--out", shipped, "--overwrite", cwd=tmp_path)
    assert taken.returncode == 3
    assert "ships with edgekd" in taken.stderr
    assert shipped.read_text() == before
    meter = edgekd(*LOCAL, "--power", "voltcraft", cwd=tmp_path)
    assert meter.returncode == 3
    assert "is no meter" in meter.stderr
