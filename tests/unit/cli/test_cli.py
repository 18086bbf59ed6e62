import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from edgekd.cli import app

HEAVY = [
    "torch",
    "tensorflow",
    "jax",
    "onnx",
    "onnxruntime",
    "paramiko",
    "pandas",
    "altair",
    "matplotlib",
    "scipy",
    "sklearn",
    "ai_edge_litert",
]


def commands(group=None, path=()):
    """Every command of the app as its words."""
    import typer.main

    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


COMMANDS = sorted(commands())


def run(*arguments, **options):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


def test_there_are_commands():
    assert {("fit",), ("deploy",), ("measure",), ("report",), ("profile", "check")} <= set(COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["fit", "--help"], ["profile", "list"], ["nonsense"]])
def test_light_commands_import_nothing_heavy(arguments):
    code = (
        "import sys, edgekd.cli\n"
        f"sys.argv = ['edgekd', *{arguments!r}]\n"
        "try:\n    edgekd.cli.main()\nexcept SystemExit:\n    pass\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().splitlines()[-1] == "HEAVY []", done.stdout + done.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_commands_help_shows_an_example_of_itself(words):
    result = run(*words, "--help", env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"edgekd {' '.join(words)}" in result.stdout.split("Usage:")[1].split("\n", 2)[2]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_has_json(words):
    assert "--json" in run(*words, "--help", env={"COLUMNS": "200"}).stdout


def test_usage_errors_exit_2():
    assert run("fit", "--no-such-flag").exit_code == 2
    assert run("deploy", "somewhere").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fit", "--profile", "rpi44"], 3, "rpi4"),
        (["fit"], 3, "--profile"),
        (["fit", "--profile", "jetson-nano"], 3, "Python 3.6"),
        (["fit", "--profile", "rpi4", "--task", "nope"], 3, "watch-gestures"),
        (["fit", "--profile", "rpi4", "--task", "missing.py"], 3, "missing.py"),
        (["fit", "--profile", "rpi4", "--accuracy-min", "85"], 3, "--accuracy-min 85"),
        (["fit", "--profile", "rpi4", "--latency-p90-ms", "-1"], 3, "--latency-p90-ms"),
        (["fit", "missing.toml", "--profile", "rpi4"], 3, "missing.toml"),
        (["fit", "--profile", "rpi4", "--latency-p90-ms", "0.0001"], 1, "binding: latency_p90_ms"),
        (["fit", "--profile", "rpi4", "--out", "/proc/nowhere/run"], 3, "/proc/nowhere"),
        (["deploy", "missing", "--board", "local"], 3, "missing"),
        (["report", "missing"], 3, "missing"),
        (["measure", "missing.tflite", "--board", "local"], 3, "missing.tflite"),
        (["profile", "show", "rpi44"], 3, "rpi4"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_says_what_is_wrong_and_writes_nothing(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_kind_is_refused(tmp_path):
    model = tmp_path / "model.pt"
    model.write_bytes(b"weights")
    result = run("measure", model, "--board", "local")
    assert result.exit_code == 3
    assert ".tflite and .onnx" in result.stderr
    assert run("measure", tmp_path, "--board", "local").exit_code == 3


def test_profiles_are_listed_shown_and_checked(tmp_path):
    names = [row["name"] for row in json.loads(run("profile", "list", "--json").stdout)]
    assert {"rpi3", "rpi4", "rpi5", "rpi-zero2w", "jetson-orin-nano", "jetson-agx-orin", "host"} == set(names)
    shown = json.loads(run("profile", "show", "RaspberryPi4B", "--json").stdout)
    assert shown["name"] == "rpi4"
    assert shown["soc"]["cores"]["source"]
    assert "rpi4" in run("profile", "show", "rpi4").stdout
    path = tmp_path / "mine.toml"
    path.write_text("name = 3\n[budget]\nlatency_p90_s = 1\n")
    result = run("profile", "check", path)
    assert result.exit_code == 3
    assert "latency_p90_ms" in result.stderr
    from edgekd.load import shipped_profiles

    path.write_text(shipped_profiles()[0].read_text() + "\n[surplus]\n")
    assert "mine.toml has 1 error:" in run("profile", "check", path).stderr
    assert json.loads(run("profile", "check", path, "--json").stdout)["valid"] is False


def test_a_reader_that_goes_away_is_no_bug():
    code = "import sys, edgekd.cli; sys.argv = ['edgekd', 'schema', 'report']; edgekd.cli.main()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=60) == 141
    assert said == ""


def test_an_edgekd_toml_here_is_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edgekd.toml").write_text("[task]\nname = 'not-a-task'\n")
    result = run("fit", "--profile", "rpi4")
    assert result.exit_code == 3
    assert "edgekd.toml" in result.stderr
    assert "not-a-task" in result.stderr


def test_a_missing_extra_is_named(tmp_path):
    code = (
        "import sys, importlib.util\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'torch' else real(name, *rest)\n"
        "sys.argv = ['edgekd', 'fit', '--profile', 'rpi4']\n"
        "import edgekd.cli\nedgekd.cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 3
    assert "edgekd[fit]" in done.stderr
