import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekd.cli import app

DIGITS = Path(__file__).resolve().parents[2] / "digits_task.py"


def run(*arguments):
    return CliRunner().invoke(app, ["fit", *map(str, arguments)], env={"COLUMNS": "300"})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_dry_run_plans_each_profile_and_writes_nothing(tmp_path):
    result = run("--task", DIGITS, "--profile", "rpi4", "--profile", "rpi5", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    plans = json.loads(result.stdout)
    assert [plan["profile"] for plan in plans] == ["rpi4", "rpi5"]
    for plan in plans:
        macs = [one["candidate"]["macs"] for one in plan["candidates"]]
        assert macs == sorted(macs)
        assert all(one["training_s"] > 0 for one in plan["candidates"])
        assert {"latency_p90_ms", "peak_memory_mib"} <= set(plan["candidates"][0]["candidate"]["predicted"])
        assert plan["total_s"] > max(one["training_s"] for one in plan["candidates"])
        assert plan["findings"]["int8-pays"]["basis"] == "predicted"
    assert not list(tmp_path.iterdir())


def test_a_dry_run_tells_what_follows_training():
    arguments = ("--task", DIGITS, "--profile", "rpi4", "--dry-run")
    flags = ("--mixed", "--steps", "learned", "--allow-float-ops", "--float-io", "--opset", 18)
    plan = json.loads(run(*arguments, *flags, "--json").stdout)
    wanted = {"mixed": True, "steps": "learned", "allow_float_ops": True, "float_io": True, "opset": 18, "qat": "auto"}
    assert wanted.items() <= plan["quantize"].items()
    shown = run(*arguments, *flags, "--qat", "always").stdout
    assert "QAT always, its ranges learned (LSQ+); the worst layers in float" in shown and "opset 18" in shown
    assert json.loads(run(*arguments, "--qat", "never", "--json").stdout)["quantize_s"] == 0 < plan["quantize_s"]


def test_a_dry_run_of_a_search_shows_its_sizes_and_what_fills_the_budget():
    arguments = ("--task", DIGITS, "--profile", "rpi4", "--dry-run", "--json")
    sizes, searched = (json.loads(run(*arguments, "--search", search).stdout) for search in ("ladder", "halving"))
    labels = [{str(one["candidate"]["choices"]) for one in plan["candidates"]} for plan in (sizes, searched)]
    assert labels[0] < labels[1]
    assert sizes["short_runs"] == 0 and searched["short_runs"] == len(labels[0]) + 10
    assert searched["total_s"] > max(one["training_s"] for one in searched["candidates"])


def test_a_dry_run_shows_the_intervals_that_decide():
    from edgekd.core.statistics import at_95_percent
    from edgekd.records import Estimate

    arguments = ("--task", DIGITS, "--profile", "rpi4", "--dry-run")
    candidate = json.loads(run(*arguments, "--json").stdout)["candidates"][0]["candidate"]
    memory = Estimate.model_validate(candidate["predicted"]["peak_memory_mib"])
    assert memory.confidence < 0.95
    low, high = at_95_percent(memory)
    shown = run(*arguments).stdout
    assert f"({low:.3g} to {high:.3g})" in shown and "95 % intervals" in shown


def test_a_budget_nothing_meets_is_answered_with_a_frontier(tmp_path):
    result = run("--task", DIGITS, "--profile", "rpi4", "--latency-p90-ms", "0.0001", "--json")
    assert result.exit_code == 1
    (only,) = json.loads(result.stdout)["frontier"]
    assert only["constraint"] == "latency_p90_ms"
    assert only["limit"] == 0.0001
    assert only["needed"] > 0.0001
    assert only["candidate"]["choices"]["width"] >= 4
    assert not list(tmp_path.iterdir())
    relaxed = run("--task", DIGITS, "--profile", "rpi4", "--latency-p90-ms", 1.001 * only["needed"], "--dry-run")
    assert relaxed.exit_code == 0, relaxed.output


def test_two_limits_in_the_way_are_each_priced():
    result = run("--task", DIGITS, "--profile", "rpi4", "--latency-p90-ms", "0.0001", "--file-size-kib", "1", "--json")
    assert result.exit_code == 1
    frontier = json.loads(result.stdout)["frontier"]
    assert {one["constraint"] for one in frontier} == {"latency_p90_ms", "file_size_kib"}
    assert all("must be relaxed too" in one["reason"] for one in frontier)


def test_a_power_limit_without_a_sensor_is_said_before_training():
    result = run("--task", DIGITS, "--profile", "rpi4", "--energy-mj", "2", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "rpi4 has no power sensor: energy_mj" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "rpi4", "--profile", "rpi5", "--board", "local"], "2 profiles"),
        (["--profile", "rpi4", "--profile", "RaspberryPi4B"], "twice"),
        (["--profile", "rpi4", "--board", "local", "--task", DIGITS], "another's name"),
        (["--profile", "rpi4", "--steps", "learned", "--qat", "never"], "--qat never leaves it out"),
        (["--profile", "rpi4", "--opset", "12"], "--opset 12 cannot carry wi8_ai8"),
        (["--profile", "rpi4", "--opset", "999"], "--opset 999 is unknown"),
    ],
    ids=[
        *("one board for two profiles", "one profile twice", "a board of another kind"),
        *("ranges learned without training", "an opset too old", "an opset nobody knows"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, message, tmp_path):
    result = run(*arguments)
    assert result.exit_code == 3, result.output
    assert message in result.stderr
    assert not list(tmp_path.iterdir())
