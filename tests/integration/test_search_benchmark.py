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
    *("--seeds", "1", "--runs", "3", "--epochs", "12", "--methods", "search,random", "--budgets", "loose"),
]


def test_both_methods_spend_alike_and_meet_the_limit_and_a_second_call_trains_nothing(tmp_path):
    rows = tmp_path / "rows.jsonl"
    first = subprocess.run([*COMMAND, "--rows", str(rows)], capture_output=True, text=True, timeout=280)
    assert first.returncode == 0, first.stderr
    again = subprocess.run([*COMMAND, "--rows", str(rows)], capture_output=True, text=True, timeout=280)
    assert (again.returncode, again.stdout) == (0, ""), again.stderr
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["method"] for row in found] == ["search", "random"]
    for row in found:
        assert row["predicted_p90_ms"] <= row["limit_p90_ms"]
        assert 0.1 < row["test"] <= 1
    assert found[0]["steps"] <= 1.05 * found[1]["steps"]
