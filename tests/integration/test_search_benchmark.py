"""The benchmark of the search against a width multiplier and random search runs, spends alike and goes on."""

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
    *("--seeds", "1", "--runs", "3", "--epochs", "12", "--methods", "search,width,random"),
]


def test_all_methods_spend_alike_meet_the_limit_and_a_second_call_trains_nothing(tmp_path):
    rows = tmp_path / "rows.jsonl"
    first = subprocess.run([*COMMAND, "--rows", str(rows)], capture_output=True, text=True, timeout=280)
    assert first.returncode == 0, first.stderr
    again = subprocess.run([*COMMAND, "--rows", str(rows)], capture_output=True, text=True, timeout=280)
    assert (again.returncode, again.stdout) == (0, ""), again.stderr
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert {(row["budget"], row["method"]) for row in found} == {
        (budget, method) for budget in ("tight", "loose") for method in ("search", "width", "random")
    }
    for row in found:
        assert row["predicted_p90_ms"] <= row["limit_p90_ms"]
        assert 0.1 < row["test"] <= 1
    steps = {(row["budget"], row["method"]): row["steps"] for row in found}
    for budget in ("tight", "loose"):
        # Where fewer widths fit than runs are allowed, the multiplier has less to train.
        assert steps[budget, "search"] <= 1.05 * steps[budget, "random"]
        assert steps[budget, "width"] <= steps[budget, "random"]
