"""`edgekd objectives` and `edgekd distill`, as a shell sees them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.records import REGIMES, Distillation
from edgekd.train.objectives import OBJECTIVES

DIGITS = str(Path(__file__).parent / "digits_task.py")
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
        (
            ("--objective", "hintn", "--regime", "semi_supervisd"),
            ["did you mean hinton?", "did you mean semi_supervised?"],
        ),
        (("--task", DIGITS, "--regime", "semi_supervised"), ["no unlabelled inputs", "--labels N"]),
        (("--task", DIGITS, "--labels", "5000"), ["labels = 5000"]),
        (("--task", DIGITS, "--teacher", "no.onnx"), ["no.onnx: no such file"]),
    ],
)
def test_what_cannot_be_done_is_said_with_exit_code_3(arguments, said, capfd):
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
        "wrong.toml:2: distill.regime",
        "wrong.toml:3: distill.objectives[0]: there is no kind 'hintn': did you mean hinton?",
        "wrong.toml:7: distill.objectives[1].temprature: unknown key; did you mean temperature?",
        "wrong.toml:10: distill.objectives[2].temperature: is 0, must be greater than 0",
        "wrong.toml:13: distill.objectives[3].temperature: unknown key",
    ):
        assert said in ran.output.replace("\n  ", "\n  "), ran.output
