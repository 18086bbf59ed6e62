"""`edgekd objectives` and `edgekd distill`, as a shell sees them."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.records import REGIMES, Distillation
from edgekd.train.objectives import OBJECTIVES

DIGITS = str(Path(__file__).parent / "digits_task.py")
DAMAGED = "damaged.pt"
PROMISED = {"accuracy", "val_accuracy", "scratch_accuracy", "agreement", "ece", "seconds", "steps", "params"}


def invoke(*arguments):
    return CliRunner().invoke(app, arguments)


def test_each_kind_and_regime_stands_at_the_start_of_a_line_of_its_own():
    shown = invoke("objectives")
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == [*OBJECTIVES, *REGIMES]
    assert "    temperature = 3.0  [> 0 and <= 100] T: higher shows more of the unlikely classes" in lines


def test_objectives_as_json_say_formula_paper_use_and_ranges():
    entries = json.loads(invoke("objectives", "--json").stdout)
    assert [(entry["type"], entry["kind"]) for entry in entries] == [
        *(("objective", kind) for kind in OBJECTIVES),
        *(("regime", name) for name in REGIMES),
    ]
    assert all(entry["formula"] and entry["paper"] and entry["use"] for entry in entries)
    relational = {parameter["name"]: parameter for parameter in entries[len(OBJECTIVES) - 1]["parameters"]}
    assert relational["form"]["choices"] == ["distance_angle", "similarity"]
    assert relational["weight"]["range"] == ">= 0"


def test_a_regimes_parameters_are_those_that_its_table_in_a_recipe_takes():
    regimes = [entry for entry in json.loads(invoke("objectives", "--json").stdout) if entry["type"] == "regime"]
    tables = {}
    for entry in regimes:
        assert entry["data"]
        assert bool(entry["table"]) == bool(entry["parameters"])
        assert all(parameter["description"] for parameter in entry["parameters"]), entry["kind"]
        if entry["table"]:
            name = entry["table"].removeprefix("[distill.").removesuffix("]")
            tables[name] = {parameter["name"]: parameter["default"] for parameter in entry["parameters"]}
    distill = Distillation().model_dump(mode="json")
    assert tables == {name: distill[name] for name in tables}
    # Whatever else [distill] holds as a table is the schedule, which belongs to all regimes.
    assert {name for name, value in distill.items() if isinstance(value, dict)} - set(tables) == {"training"}


def test_distill_prints_what_was_promised(tmp_path):
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        "[student.fixed]\nwidth = 4\nexpansion = 2\n"
        "[distill.training]\nepochs = 9\nlearning_rate = 1e-2\nbatch_size = 32\n"
    )
    weights = tmp_path / "student.pt"
    options = ("--task", DIGITS, "--objective", "dkd", "--regime", "curriculum", "--epochs", "2", "--seed", "1")
    ran = invoke("distill", str(recipe), *options, "--save", str(weights), "--json")
    assert ran.exit_code == 0, ran.output
    result = json.loads(ran.stdout)
    assert set(result) >= PROMISED
    assert (result["task"], result["regime"], result["objectives"]) == ("digits", "curriculum", ["hard", "dkd"])
    assert (result["seed"], result["steps"]) == (1, 2 * (900 // 32))
    assert weights.stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--task", DIGITS, "--regime", "semi_supervised"), ["no unlabelled inputs", "--labels N"]),
        (("--task", DIGITS, "--labels", "5000"), ["labels = 5000"]),
        (("--task", DIGITS, "--labels", "9"), ["labels = 9 (--labels): there are 10 classes"]),
        (("--task", DIGITS, "--teacher", "no.onnx"), ["no.onnx: no such file"]),
        (("--task", DIGITS, "--teacher", DAMAGED), ["damaged.pt: not torch weights"]),
        (("--task", DIGITS, "--save", "nowhere/student.pt"), ["--save nowhere/student.pt: nowhere is no directory"]),
        (("--task", DIGITS, "--save", "."), ["is a directory"]),
        (("--task", DIGITS, "--tune-minutes", "1", "--tune-file", DAMAGED), ["damaged.pt: holds no trials"]),
        (("--task", DIGITS, "--tune-minutes", "1", "--tune-file", "damaged.pt/x"), ["cannot be written"]),
    ],
)
def test_what_cannot_be_done_is_said_with_exit_code_3(arguments, said, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(DAMAGED).write_bytes(b"no torch file at all")
    ran = invoke("distill", *arguments)
    assert ran.exit_code == 3
    shown = ran.output + "".join(capfd.readouterr())
    assert all(part in shown for part in said), shown


def test_every_error_of_a_recipes_objectives_is_told_at_once_with_its_line(tmp_path):
    recipe = tmp_path / "wrong.toml"
    recipe.write_text(
        '[distill]\nregime = "offlin"\n'
        '[[distill.objectives]]\nkind = "hintn"\n'
        '[[distill.objectives]]\nkind = "dkd"\ntemprature = 2\n'
        '[[distill.objectives]]\nkind = "hinton"\ntemperature = 0\n'
        '[[distill.objectives]]\nkind = "hard"\ntemperature = 3\n'
    )
    ran = invoke("distill", str(recipe))
    assert ran.exit_code == 3
    for said in (
        "wrong.toml:2: distill.regime: is 'offlin', must be",
        "; did you mean offline?",
        "wrong.toml:3: distill.objectives[0]: there is no kind 'hintn': did you mean hinton?",
        "wrong.toml:7: distill.objectives[1].temprature: unknown key; did you mean temperature?",
        "wrong.toml:10: distill.objectives[2].temperature: is 0, must be greater than 0",
        "wrong.toml:13: distill.objectives[3].temperature: unknown key",
    ):
        assert said in ran.output.replace("\n  ", "\n  "), ran.output


def test_a_regime_written_as_its_table_is_told_the_tables_name(tmp_path):
    recipe = tmp_path / "wrong.toml"
    recipe.write_text("[distill.self]\ngenerations = 2\n")
    ran = invoke("distill", str(recipe))
    assert ran.exit_code == 3
    assert "distill.self: unknown key; did you mean self_distillation?" in ran.output


@pytest.mark.parametrize("command", ["distill", "fit"])
def test_a_flag_with_a_value_that_it_does_not_take_is_usage(command, capfd):
    ran = invoke(command, "--objective", "hintn", "--regime", "semi_supervisd", "--tune-minutes", "0")
    assert ran.exit_code == 2
    shown = ran.output + "".join(capfd.readouterr())
    for said in ("did you mean hinton?", "did you mean semi_supervised?", "--tune-minutes 0: must be above 0"):
        assert said in shown, shown
    assert invoke(command, "--epochs" if command == "distill" else "--labels", "0").exit_code == 2


@pytest.fixture
def small(tmp_path):
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        "[student.fixed]\nwidth = 4\nexpansion = 2\n"
        "[distill.training]\nepochs = 2\nlearning_rate = 1e-2\nbatch_size = 32\n"
    )
    return str(recipe)


def test_checkpoints_of_other_settings_are_refused_before_training_and_the_settings_named(small, tmp_path, capfd):
    kept = tmp_path / "kept"
    first = invoke("distill", small, "--task", DIGITS, "--checkpoints", str(kept), "--json")
    assert first.exit_code == 0, first.output
    files = {file: file.stat().st_mtime_ns for file in kept.glob("*.ckpt")}
    assert {file.stem for file in files} == {"teacher", "offline-student", "scratch"}
    capfd.readouterr()

    again = invoke("distill", small, "--task", DIGITS, "--checkpoints", str(kept), "--json")
    assert again.exit_code == 0
    same = ("accuracy", "teacher_accuracy", "scratch_accuracy", "val_accuracy", "steps")
    assert [json.loads(again.stdout)[name] for name in same] == [json.loads(first.stdout)[name] for name in same]
    # What is finished is taken as it is: nothing is trained, nothing written.
    assert {file: file.stat().st_mtime_ns for file in kept.glob("*.ckpt")} == files

    capfd.readouterr()
    other = invoke("distill", small, "--task", DIGITS, "--checkpoints", str(kept), "--epochs", "3")
    shown = other.output + "".join(capfd.readouterr())
    assert other.exit_code == 3
    assert "distill.training.epochs is 2 there, 3 asked. Repeat" in shown
    assert "teacher  trained" not in shown

    (kept / "settings.json").write_text("{")
    assert invoke("distill", small, "--task", DIGITS, "--checkpoints", str(kept)).exit_code == 5


@pytest.mark.parametrize("keep", [True, False])
def test_an_interrupted_distill_says_what_is_kept(small, tmp_path, keep):
    flags = ["--checkpoints", str(tmp_path / "kept")] if keep else []
    program = [sys.executable, "-c", "from edgekd.cli import main; main()"]
    command = [*program, "distill", small, "--task", DIGITS, "--epochs", "2000", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if " student " in line:
            process.send_signal(signal.SIGINT)
            break
    said += process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    if keep:
        assert f"what was trained is kept in {tmp_path / 'kept'}; the same command goes on" in said.replace("\n", " ")
        assert (tmp_path / "kept" / "teacher.ckpt").is_file()
    else:
        assert "interrupted: nothing is kept; with --checkpoints DIR" in said


def test_an_ablation_keeps_its_students_apart_under_checkpoints(small, tmp_path, capfd):
    flags = ("--task", DIGITS, "--checkpoints", str(tmp_path / "kept"), "--ablation", "full", "--seeds", "1", "--json")
    first = invoke("distill", small, *flags)
    assert first.exit_code == 0, first.output + "".join(capfd.readouterr())
    again = invoke("distill", small, *flags)
    assert again.exit_code == 0
    means = [[row["mean"] for row in json.loads(run.stdout)["ablation"]["rows"]] for run in (first, again)]
    assert means[0] == means[1]
