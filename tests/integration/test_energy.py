"""The energy pass on this machine as the board: fake sysfs trees that a process writes, external meters, replays."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from interrupted import FIXTURES, board_model, short_plan
from ssh_server import processes_naming

from edgekd.board.connection.open import open_session
from edgekd.board.measuring.measure import measure
from edgekd.board.power.external import ExternalMeter
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import provision
from edgekd.core.energy import trapezoid_joules
from edgekd.errors import BoardError, ConfigurationError

MODEL = FIXTURES / "tiny_int8.tflite"
UPDATE_S = 0.01


def energy_plan(meter, runtime="tflite", **changes):
    values = {
        "meter": meter,
        "min_seconds": 0.2,
        "energy_windows": 5,
        "energy_window_seconds": 0.6,
        "energy_lead_seconds": 0.2,
    }
    return short_plan(runtime, **{**values, **changes})


def measured(board, plan, model=MODEL):
    with open_session(board) as session:
        environment = provision(session, plan.runtime)
        folder = deploy_files(session, {model.name: model}, "r")
        return measure(session, environment, board_model(folder, model), plan)


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))
    return "local"


class Registers(threading.Thread):
    """A synthetic power profile, written into an INA3221's files as the driver would show it, and kept as the truth.

    A slow swing and a fast one about 5 W; each file is replaced whole, so that no reader sees half a number.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.folder = root / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
        self.folder.mkdir(parents=True)
        self.ended = threading.Event()
        self.seconds: list[float] = []
        self.watts: list[float] = []
        for n, label in ((1, "VDD_IN"), (2, "VDD_CPU_GPU_CV"), (3, "NC")):
            self.put(f"in{n}_label", label)
            self.put(f"in{n}_input", 5000)
            self.put(f"curr{n}_input", 500)
        self.put("in7_label", "sum of shunt voltages")
        self.start()

    def put(self, name, value):
        partial = self.folder / f".{name}"
        partial.write_text(f"{value}\n")
        partial.replace(self.folder / name)

    def run(self):
        while not self.ended.is_set():
            now = time.perf_counter()
            milliamperes = round(1000 + 150 * np.sin(2 * np.pi * now / 0.9) + 60 * np.sin(2 * np.pi * now / 0.23))
            self.put("curr1_input", milliamperes)
            self.seconds.append(time.perf_counter())
            self.watts.append(milliamperes * 5.0 / 1e3)
            time.sleep(UPDATE_S)

    def stop(self):
        self.ended.set()
        self.join()


@pytest.fixture
def registers(tmp_path, monkeypatch):
    made = Registers(tmp_path / "sys")
    monkeypatch.setenv("EDGEKD_SYSFS", str(tmp_path / "sys"))
    yield made
    made.stop()


def test_energy_of_known_registers_is_within_two_percent_and_the_interval_covers_it(local, registers):
    result = measured(local, energy_plan("auto"))
    registers.stop()
    power = result.power
    assert (power.meter, power.rail, power.grade) == ("ina3221", "VDD_IN", "B")
    # The registers were written by this process, whose clock is the board's: this machine is the board.
    active = [window for window in power.windows if window.runs]
    assert len(active) == 5
    runs = sum(window.runs for window in active)
    origin = result.facts["method"]["energy"]["clock_origin_ns"] / 1e9
    truth_j = sum(
        trapezoid_joules(registers.seconds, registers.watts, origin + window.begin_s, origin + window.end_s)
        for window in active
    )
    truth_mj = 1e3 * truth_j / runs
    assert power.energy_mj == pytest.approx(truth_mj, rel=0.02)
    assert power.interval_mj[0] <= truth_mj <= power.interval_mj[1]
    assert power.net_mj < power.energy_mj
    assert power.mean_w == pytest.approx(5.0, rel=0.05)
    assert len(power.trace) > 20
    assert not processes_naming(os.environ["EDGEKD_BOARD_HOME"])
    # These windows are far below ten seconds, which no verdict may rest on.
    assert any("10 s" in problem for problem in power.problems)


def test_no_meter_is_said_and_one_asked_for_by_name_is_an_error(local, tmp_path, monkeypatch):
    (tmp_path / "sys").mkdir()
    monkeypatch.setenv("EDGEKD_SYSFS", str(tmp_path / "sys"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert measured(local, energy_plan("auto")).power is None
    with pytest.raises(BoardError, match="no ina3221"):
        measured(local, energy_plan("ina3221"))


METER = """
import math, sys, time
print("# rail=bench supply")
print("# resolution_w=0.001", flush=True)
clock = time.time if sys.argv[1] == "unix" else time.monotonic
while True:
    print(f"{clock():.6f},{4 + 0.2 * math.sin(7 * time.monotonic()):.4f}", flush=True)
    time.sleep(0.02)
"""


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["unix", "monotonic"])
def test_an_external_meter_is_aligned_and_is_grade_a(make_sshd, tmp_path, clock):
    script = tmp_path / "meter.py"
    script.write_text(METER)
    server = make_sshd({"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"})
    result = measured(server.board, energy_plan(f"external:{sys.executable} {script} {clock}"))
    power = result.power
    assert (power.grade, power.rail) == ("A", "bench supply")
    assert power.mean_w == pytest.approx(4.0, rel=0.03)
    assert 0 < power.clock_error_s < 1.0
    assert power.idle_w == pytest.approx(4.0, rel=0.03)
    assert power.trace[0][0] < min(window.begin_s for window in power.windows)


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ("/no/such/meter", "cannot be started"),
        ("echo seconds,watts", "no reading"),
        ("echo 12,hello", "not a line"),
        ("echo 12345678.5,4.0", "neither this machine's"),
        ("", "needs a command"),
    ],
)
def test_external_commands_that_are_no_meters(command, match):
    with pytest.raises(ConfigurationError, match=match), ExternalMeter(command):
        pass


@pytest.mark.slow
def test_a_replayed_trace_is_grade_d(local, tmp_path):
    path = tmp_path / "trace.csv"
    random = np.random.default_rng(0)
    rows = [f"{at:.3f},{3 + random.normal(0, 0.01):.5f}" for at in np.arange(0, 60, 0.05)]
    path.write_text("seconds,watts\n# rail=VDD_IN\n" + "\n".join(rows) + "\n")
    power = measured(local, energy_plan(f"replay:{path}")).power
    assert (power.grade, power.rail) == ("D", "VDD_IN")
    active = [window for window in power.windows if window.runs]
    truth = 1e3 * 3.0 * sum(window.end_s - window.begin_s for window in active) / sum(w.runs for w in active)
    assert power.energy_mj == pytest.approx(truth, rel=0.02)
    assert power.interval_mj[0] <= truth <= power.interval_mj[1]


@pytest.mark.slow
def test_a_trace_that_ends_too_early_is_an_error(local, tmp_path):
    path = tmp_path / "short.csv"
    path.write_text("0,1\n0.1,1.1\n")
    with pytest.raises(BoardError, match="stopped"):
        measured(local, energy_plan(f"replay:{path}"))


@pytest.mark.slow
def test_a_sensor_that_fails_for_good_ends_the_pass(local, registers):
    def fail():
        time.sleep(0.3)
        for name in ("in1_input", "curr1_input"):
            (registers.folder / name).unlink(missing_ok=True)

    registers.stop()
    plan = energy_plan("ina3221", energy_window_seconds=1.0)
    with open_session(local) as session:
        environment = provision(session, "tflite")
        folder = deploy_files(session, {MODEL.name: MODEL}, "r")

        def heard(message):
            if message.startswith("energy: 1 of"):
                fail()

        with pytest.raises(BoardError, match="power meter (changed|failed)|no ina3221"):
            measure(session, environment, board_model(folder, MODEL), plan, on_progress=heard)


@pytest.mark.slow
def test_spinning_is_off_while_energy_is_measured(local, registers):
    result = measured(local, energy_plan("ina3221", "onnx"), FIXTURES / "tiny_int8.onnx")
    assert result.facts["method"]["energy"]["runtime_settings"]["spinning"] == "off"
    assert "on" in result.facts["method"]["runtime_settings"]["spinning"]
    assert result.per_operator
    assert sum(operator.share for operator in result.per_operator) == pytest.approx(1.0)
    assert {operator.kind for operator in result.per_operator} >= {"QLinearConv"}


@pytest.mark.slow
def test_energy_at_an_arrival_rate_counts_the_time_between_arrivals(local, registers):
    plan = energy_plan("ina3221", rate_hz=50.0, min_runs=20)
    result = measured(local, plan)
    assert result.deadline_misses is not None
    assert result.runs >= 20
    active = [window for window in result.power.windows if window.runs]
    for window in active:
        assert window.runs <= 50 * (window.end_s - window.begin_s) + 2
    steps = np.diff(
        [at for at, process in zip(result.sample_times_s, result.sample_processes, strict=True) if process == 0]
    )
    assert np.median(steps) > 0.01
