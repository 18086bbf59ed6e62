"""`edgekd board` where no board is needed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.records.board import KnownBoard
from edgekd.store.boards import boards_file, known_boards, remember_board


@pytest.fixture
def run(tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "board"))
    return lambda *arguments: CliRunner().invoke(app, ["board", *arguments])


def known(board: str) -> KnownBoard:
    return KnownBoard(board=board, description="a board", last_used_utc="2026-01-01", last_command="board check")


def test_boards_used_before_are_listed_last_one_first(run):
    assert json.loads(run("list", "--json").stdout) == []
    for name in ("pi@a", "pi@b", "pi@a"):
        remember_board(known(name))
    assert [row["board"] for row in json.loads(run("list", "--json").stdout)] == ["pi@a", "pi@b"]
    assert [board.board for board in known_boards()] == ["pi@a", "pi@b"]
    boards_file().write_text("{")
    assert run("list").exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bundle", "--platform", "windows", "--python", "3.11"), "platform tag"),
        (("bundle", "--platform", "manylinux_2_28_aarch64", "--python", "2.7"), "3.9 or newer"),
        (("emulate", "jetson-orin-nano"), "no emulated board"),
        (("emulate", "rpi44"), "rpi4"),
        (("check", "pi@host:99999"), "not understood"),
        (("check", "local", "--profile", "rpi44"), "rpi4"),
    ],
)
def test_what_cannot_be_is_exit_3(run, arguments, words):
    result = run(*arguments)
    assert result.exit_code == 3
    assert words in result.stderr.replace("\n", " ")


def test_check_list_and_clean_of_this_machine(run, tmp_path):
    checked = run("check", "local", "--json", "--profile", "host")
    found = json.loads(checked.stdout)
    assert checked.exit_code == 0
    assert (found["deployable"], found["matches_profile"], found["emulated"]) == (True, True, False)
    assert not (tmp_path / "board").exists()
    stored = json.loads(run("list", "local", "--json").stdout)
    assert (stored["stored"], stored["locked_by"]) == ([], None)
    cleaned = json.loads(run("clean", "local", "--json").stdout)
    assert cleaned["left"] == []
    assert not (tmp_path / "board").exists()
    assert json.loads(run("list", "--json").stdout)[0]["board"] == "local"


@pytest.mark.parametrize("command", ["check", "list", "bundle", "clean", "emulate"])
def test_each_command_shows_an_example(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "edgekd board" in result.stdout
    assert "Example" in result.stdout
