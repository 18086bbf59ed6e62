"""The benchmark of the search against random search runs, spends alike and goes on where it was."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [
    sys.executable,
    str(ROOT / "benchmarks/search/accuracy.py"),
    *("--profile", "host", "--task", str(ROOT / "tests/digits_task.py")),
    *("--seeds", "0", "--epochs", "6", "--methods", "search,random", "--budgets", "tight"),
]


AS_TEXT = {"capture_output": True, "text": True, "timeout": 280}


def test_random_search_spends_what_the_search_spent_both_meet_the_limit_and_a_second_call_trains_nothing(tmp_path):
    rows = tmp_path / "rows.jsonl"
    first = subprocess.run([*COMMAND, "--rows", str(rows)], **AS_TEXT)
    assert first.returncode == 0, first.stderr
    again = subprocess.run([*COMMAND, "--rows", str(rows)], **AS_TEXT)
    assert (again.returncode, again.stdout) == (0, ""), again.stderr
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["method"] for row in found] == ["search", "random"]
    for row in found:
        assert row["predicted_p90_ms"] <= row["limit_p90_ms"]
        assert 0.1 < row["test"] <= 1
    searched, drawn = found
    assert 0 < searched["cpu_s"] <= drawn["cpu_s"]
    assert searched["runs"] > 3 and drawn["runs"] >= 1
    alone = subprocess.run([*COMMAND, "--rows", str(tmp_path / "others.jsonl"), "--methods", "random"], **AS_TEXT)
    assert alone.returncode == 2 and "there is no row of it" in alone.stderr
