"""The main job from end to end, on real data and real runtimes: fit, deploy, report, resume, interrupt, tamper."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import edgekd

pytestmark = pytest.mark.slow

DIGITS = Path(__file__).resolve().parents[1] / "digits_task.py"
RECIPE = f"""
[task]
name = "{DIGITS}"

[student]
search = "ladder"
grow = 2

[student.fixed]
width = 8
depth = 1

[distill.training]
epochs = 6
learning_rate = 0.01

[quantize.training]
epochs = 2
learning_rate = 0.001
ema_decay = 0.0
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def fitted(place):
    result = edgekd(
        "fit", "recipe.toml", "--profile", "host", "--out", "run", "--accuracy-min", "0.6", "--json", cwd=place
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_fit_gives_the_files_and_the_report_it_promises(place, fitted):
    run = place / "run"
    names = {
        "report.json",
        "report.html",
        "recipe.toml",
        "student.tflite",
        "student.onnx",
        "student_fp32.tflite",
        "student_fp32.onnx",
    }
    assert names <= {path.name for path in run.iterdir()}
    assert json.loads((run / "report.json").read_text()) == fitted
    assert fitted["schema_version"] == 1
    assert fitted["measurement"] is None
    verdicts = {verdict["constraint"]: verdict for verdict in fitted["verdicts"]}
    assert verdicts["latency_p90_ms"]["basis"] == "predicted"
    assert verdicts["accuracy_min"]["basis"] == "measured"
    assert all(
        set(verdict) >= {"constraint", "limit", "value", "interval", "basis", "outcome"}
        for verdict in verdicts.values()
    )
    schemes = {artifact["path"]: (artifact["format"], artifact["scheme"]) for artifact in fitted["artifacts"]}
    assert schemes["student.tflite"] == ("tflite", "wi8_ai8")
    assert schemes["student_fp32.onnx"] == ("onnx", "fp32")
    for artifact in fitted["artifacts"]:
        assert (run / artifact["path"]).stat().st_size == artifact["size_bytes"]
    accuracy = fitted["accuracy"]
    assert accuracy["inputs"] == 540
    assert min(accuracy[name] for name in ("teacher", "scratch", "student_fp32", "student_int8")) > 0.6
    assert len(fitted["parity"]) == 4
    for pair in fitted["parity"]:
        assert pair["inputs"] == (200 if pair["pair"] == "onnx-tflite reference" else 357)
        assert pair["top1_agreement"] >= 0.99


def test_the_resolved_recipe_repeats_the_run_bit_for_bit(place, fitted):
    again = edgekd("fit", "run/recipe.toml", "--out", "again", "--json", cwd=place)
    assert again.returncode == 0, again.stderr
    hashes = [artifact["sha256"] for artifact in json.loads(again.stdout)["artifacts"]]
    assert hashes == [artifact["sha256"] for artifact in fitted["artifacts"]]


def test_resume_takes_finished_stages_and_trains_nothing(place, fitted):
    before = {path.name: path.stat().st_mtime_ns for path in (place / "run/stages").glob("*.pt")}
    assert before
    result = edgekd(
        "fit",
        "recipe.toml",
        "--profile",
        "host",
        "--out",
        "run",
        "--accuracy-min",
        "0.6",
        "--resume",
        "--json",
        cwd=place,
    )
    assert result.returncode == 0, result.stderr
    assert {path.name: path.stat().st_mtime_ns for path in (place / "run/stages").glob("*.pt")} == before
    assert json.loads(result.stdout)["artifacts"] == fitted["artifacts"]


def test_distilling_goes_on_from_the_student_that_a_run_deployed(place, fitted):
    ran = edgekd("distill", "--task", DIGITS, "--from", "run", "--epochs", 1, "--json", cwd=place)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    found = fitted["distillation"]
    before = found["scratch_val_accuracy" if found["kept"] == "scratch" else "val_accuracy"]
    assert Path(result["notes"]["start"]) == place / "run"
    assert result["notes"]["val_accuracy_before"] == pytest.approx(before)
    assert result["val_accuracy"] >= before - 1e-6
    ran = edgekd("distill", "--task", DIGITS, "--from", "run/stages", cwd=place)
    assert ran.returncode == 3
    assert "run/stages" in ran.stderr


def test_a_taken_output_is_refused(place, fitted):
    result = edgekd("fit", "recipe.toml", "--profile", "host", "--out", "run", cwd=place)
    assert result.returncode == 3
    assert "--resume" in result.stderr


def test_deploy_measures_here_and_judges_only_that(place, fitted):
    result = edgekd("deploy", "run", "--board", "local", "--plan", "quick", "--json", cwd=place)
    report = json.loads(result.stdout)
    assert result.returncode == 0, result.stderr
    measurement = report["measurement"]
    assert measurement["runtime"] == "tflite"
    assert measurement["plan"]["name"] == "quick"
    assert len(measurement["samples_ms"]) >= 64
    assert len(measurement["samples_ms"]) == len(measurement["sample_times_s"]) <= 20000
    assert measurement["latency_p50_ms"] <= measurement["latency_p90_ms"] <= measurement["latency_p99_ms"]
    assert 0 < measurement["peak_memory_bytes"] < measurement["peak_rss_bytes"]
    assert measurement["accuracy"] == pytest.approx(report["accuracy"]["student_int8"])
    assert not [note for note in measurement["notes"] if "host and board" in note]
    assert {verdict["basis"] for verdict in report["verdicts"]} == {"measured"}
    assert len(list((place / "run/reports").iterdir())) >= 1
    shown = edgekd("report", "run", cwd=place)
    assert shown.returncode == 0
    assert "met" in shown.stdout.lower()


def test_another_kind_of_board_is_recorded_but_not_judged(place, fitted):
    result = edgekd("deploy", "run", "--board", "local", "--profile", "rpi4", "--plan", "quick", "--json", cwd=place)
    assert result.returncode == 6, result.stderr
    report = json.loads(result.stdout)
    outcomes = {verdict["constraint"]: verdict["outcome"] for verdict in report["verdicts"]}
    assert outcomes["latency_p90_ms"] == outcomes["peak_memory_mib"] == "not_measured"
    assert outcomes["accuracy_min"] == "met"
    assert report["measurement"]["latency_p50_ms"] > 0


def test_tensorrt_is_given_the_fp16_student_and_judged_on_it(place, fitted):
    copy, tools = place / "half", place / "tools"
    subprocess.run(["cp", "-r", place / "run", copy], check=True)
    tools.mkdir()
    stand_in = Path(__file__).with_name("stand_in_trtexec.py")
    (tools / "trtexec").write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in} "$@"\n')
    (tools / "trtexec").chmod(0o755)
    arguments = ("deploy", "half", "--board", "local", "--profile", "host", "--plan", "quick", "--runtime", "tensorrt")
    variables = {"PATH": f"{tools}:{os.environ['PATH']}", "EDGEKD_BOARD_HOME": str(place / "home")}
    result = edgekd(*arguments, "--json", cwd=place, **variables)
    assert result.returncode in (0, 1), result.stderr
    report = json.loads(result.stdout)
    (half,) = [artifact for artifact in report["artifacts"] if artifact["scheme"] == "fp16"]
    assert half["path"] == "student_fp16.onnx"
    assert half["audit"]["honest"]
    measured = report["measurement"]
    assert measured["model_sha256"] == measured["engine"]["onnx_sha256"] == half["sha256"]
    assert measured["host_parity"]["top1_agreement"] == 1.0
    verdicts = {verdict["constraint"]: verdict for verdict in report["verdicts"]}
    assert verdicts["accuracy_min"]["outcome"] == "met"
    refused = edgekd(*arguments, "--scheme", "wi8_ai8_symmetric", cwd=place, **variables)
    assert refused.returncode == 3
    assert "wi8_ai8_symmetric" in refused.stderr


def test_require_measured_and_energy_are_undecided_without_a_board(place):
    result = edgekd(
        "fit",
        "recipe.toml",
        "--profile",
        "host",
        "--out",
        "energy",
        "--energy-mj",
        "5",
        "--ablation",
        "none",
        "--json",
        cwd=place,
    )
    assert result.returncode == 6, result.stderr
    report = json.loads(result.stdout)
    assert {v["constraint"]: v["outcome"] for v in report["verdicts"]}["energy_mj"] == "not_measured"
    assert report["accuracy"]["scratch"] is None


def test_a_tampered_artifact_is_refused(place, fitted):
    copy = place / "tampered"
    subprocess.run(["cp", "-r", place / "run", copy], check=True)
    student = copy / "student.tflite"
    content = bytearray(student.read_bytes())
    content[len(content) // 2] ^= 1
    student.write_bytes(content)
    result = edgekd("deploy", "tampered", "--board", "local", "--plan", "quick", cwd=place)
    assert result.returncode == 5
    assert "sha256" in result.stderr
    student.write_bytes(content[:100])
    assert edgekd("deploy", "tampered", "--board", "local", cwd=place).returncode == 5
    student.unlink()
    assert edgekd("deploy", "tampered", "--board", "local", cwd=place).returncode == 3


def test_ctrl_c_exits_130_and_resume_goes_on(place):
    arguments = ["fit", "recipe.toml", "--profile", "host", "--out", "stopped", "--ablation", "none"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from edgekd.cli import main; main()", *arguments],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (place / "stopped/stages/teacher.json").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "--resume" in stderr
    assert not list((place / "stopped").rglob("*.partial*"))
    teacher = (place / "stopped/stages/teacher.pt").stat().st_mtime_ns
    resumed = edgekd(*arguments, "--resume", cwd=place)
    assert resumed.returncode == 0, resumed.stderr
    assert (place / "stopped/stages/teacher.pt").stat().st_mtime_ns == teacher


def test_measure_takes_any_model_file(place, fitted):
    result = edgekd(
        "measure", "run/student.onnx", "--board", "local", "--plan", "quick", "--threads", "2", "--json", cwd=place
    )
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    assert measured["measurement"]["threads"] == 2
    assert measured["measurement"]["runtime"] == "onnx"
    assert measured["measurement"]["accuracy"] is None
    text = edgekd(
        "measure",
        "run/student.tflite",
        "--board",
        "local",
        "--plan",
        "quick",
        "--inputs",
        "run/test_inputs.npz",
        cwd=place,
    )
    assert text.returncode == 0, text.stderr
    assert "1 thread" in text.stdout


def test_a_loss_that_is_not_a_number_is_a_build_failure(place):
    (place / "nan.toml").write_text(RECIPE.replace("learning_rate = 0.01", "learning_rate = 1e30\nclip_norm = 1e30"))
    result = edgekd("fit", "nan.toml", "--profile", "host", "--out", "nan", "--ablation", "none", cwd=place)
    assert result.returncode == 5, result.stderr
    assert "not a number" in result.stderr


class TestOverSsh:
    """The same run onto a real OpenSSH server on loopback."""

    def deploy(self, place, sshd, *arguments):
        return edgekd("deploy", "run", "--board", sshd.board, "--plan", "quick", *arguments, cwd=place)

    def test_it_is_measured_there_and_costs_are_not_judged_on_another_kind_of_board(self, place, fitted, sshd):
        result = self.deploy(place, sshd, "--identity", sshd.identity, "--json")
        assert result.returncode == 6, result.stderr
        report = json.loads(result.stdout)
        assert sshd.board.split("@")[1].split(":")[0] in report["measurement"]["board"]
        assert report["measurement"]["accuracy"] == pytest.approx(report["accuracy"]["student_int8"])
        outcomes = {verdict["constraint"]: verdict["outcome"] for verdict in report["verdicts"]}
        assert outcomes["latency_p90_ms"] == "not_measured"
        assert outcomes["accuracy_min"] == "met"

    def test_unknown_then_accepted_then_changed_host_keys(self, place, fitted, sshd):
        sshd.known_hosts.unlink()
        unknown = self.deploy(place, sshd)
        assert unknown.returncode == 4
        assert "--accept-new-host-key" in unknown.stderr
        assert self.deploy(place, sshd, "--accept-new-host-key").returncode == 6
        sshd.stop()
        sshd.new_host_key()
        sshd.start()
        changed = self.deploy(place, sshd, "--accept-new-host-key")
        assert changed.returncode == 4
        assert "changed" in changed.stderr.lower()

    def test_a_refused_login_and_an_unreachable_board(self, place, fitted, sshd):
        (sshd.root / "authorized_keys").write_text("")
        refused = self.deploy(place, sshd)
        assert refused.returncode == 4
        sshd.stop()
        unreachable = self.deploy(place, sshd)
        assert unreachable.returncode == 4
        for result in (refused, unreachable):
            assert "Traceback" not in result.stderr
            assert "127.0.0.1" in result.stderr
