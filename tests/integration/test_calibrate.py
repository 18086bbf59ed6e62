"""Calibrating this machine as a board of the host profile: interrupted, resumed, used."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CODE = "from edgekd.cli import main; main()"
ARGUMENTS = ["calibrate", "--profile", "host", "--board", "local", "--students", "14", "--minutes", "0.1"]
ENVIRONMENT = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}


def edgekd(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        env=ENVIRONMENT,
    )


def test_it_goes_on_where_it_was_interrupted_and_writes_a_profile_that_works(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, *ARGUMENTS, "--json"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    rounds = tmp_path / ".host-calibrated.rounds.jsonl"
    deadline = time.monotonic() + 120
    while not (rounds.is_file() and len(rounds.read_text().splitlines()) > 5):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not (tmp_path / "host-calibrated.toml").exists()
    kept = rounds.read_text().splitlines()
    rounds.write_text("\n".join(kept) + '\n{"student": 0, "rou')
    result = edgekd(*ARGUMENTS, "--json", cwd=tmp_path)
    if result.returncode == 4:
        pytest.skip("this machine is too busy for a calibration: " + result.stderr[-300:])
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    timed = sum(sample["rounds"] for sample in found["samples"]) + found["throttled_rounds"]
    assert timed >= len(kept) - 1
    assert not rounds.exists()
    assert not list(tmp_path.glob(".*"))
    model = found["latency_model"]
    assert model["provenance"] == "measured"
    assert model["held_out_mape_percent"] > 0
    assert len(model["held_out"]) == sum(sample["role"] == "held_out" for sample in found["samples"])
    assert Path(tmp_path / "host-calibrated.svg").read_text().lstrip().startswith("<?xml")
    written = tomllib.loads((tmp_path / "host-calibrated.toml").read_text())
    assert written["name"] == "host-calibrated"
    shown = json.loads(edgekd("profile", "show", "./host-calibrated.toml", "--json", cwd=tmp_path).stdout)
    first = shown["latency_models"][0]
    assert {"runtime", "scheme", "threads", "provenance", "samples", "held_out_mape_percent", "interval_coverage"} <= (
        set(first)
    )
    assert first["samples"] == model["samples"]
    again = edgekd(*ARGUMENTS, cwd=tmp_path)
    assert again.returncode == 3
    assert "--overwrite" in again.stderr


def test_other_boards_and_shipped_files_are_refused(tmp_path):
    other = edgekd("calibrate", "--profile", "rpi4", "--board", "local", cwd=tmp_path)
    assert other.returncode == 3
    assert "another's name" in other.stderr
    shipped = Path(__file__).resolve().parents[2] / "device_profiles" / "host.toml"
    before = shipped.read_text()
    taken = edgekd(*ARGUMENTS, "--out", shipped, "--overwrite", cwd=tmp_path)
    assert taken.returncode == 3
    assert "ships with edgekd" in taken.stderr
    assert shipped.read_text() == before
