"""The benchmark of the fit, on files that other people might give it."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.core.latency_fit import fit_cost

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/latency_model.py"
ALWAYS = {
    *("mape_percent", "within_5_percent", "within_10_percent", "spearman", "interval_coverage_90"),
    *("calibrate", "seeds"),
}


def lines(count=14, header="name,a,b,ms,kind", noise=0.02, seed=0):
    """A table of made-up models, its header first."""
    random = np.random.default_rng(seed)
    found = [header]
    for index in range(count):
        a, b = random.uniform(1, 9, 2)
        ms = (0.5 + a + 0.3 * b) * np.exp(random.normal(0, noise))
        found.append(f"m{index},{a:.4f},{b:.4f},{ms:.4f},{'xyz'[index % 3]}")
    return found


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Runs the script, in this process, on a file of that content."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))

    def run_on(content, *more):
        path = tmp_path / "t.csv"
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else "\n".join(content).encode())
        given = ["--data", str(path), "--target", "ms", "--features", "a,b", "--calibrate", "6", "--seeds", "2"]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *given, "--json", *more])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return (end.value.code, *capsys.readouterr())

    return run_on


def changed(row, column, value):
    """The table with one cell (row 1 is the first below the header) replaced."""
    found = lines()
    cells = found[row].split(",")
    cells[column] = value
    return [*found[:row], ",".join(cells), *found[row + 1 :]]


def no_constants(name):
    raise AssertionError(f"{name} is no JSON")


def read(done):
    code, out, err = done
    assert code == 0, err
    result = json.loads(out, parse_constant=no_constants)
    assert set(result) >= ALWAYS
    assert 0 <= result["interval_coverage_90"] <= 1
    assert result["interval_coverage_90_percent"] == pytest.approx(100 * result["interval_coverage_90"])
    return result


def test_it_scores_the_fit_that_the_product_uses(run):
    result = read(run(lines()))
    assert (result["calibrate"], result["seeds"]) == (6, 2)
    table = np.array([[float(cell) for cell in line.split(",")[1:4]] for line in lines()[1:]])
    errors = []
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(table))
        chosen, others = table[order[:6]], table[order[6:]]
        errors.append(np.abs(fit_cost(chosen[:, :2], chosen[:, 2]).predict(others[:, :2]) / others[:, 2] - 1).mean())
    assert result["mape_percent"] == pytest.approx(100 * np.mean(errors))


GOOD = {
    "a byte order mark and Windows line ends": ("﻿" + "\r\n".join(lines())).encode(),
    "semicolons": "\n".join(lines()).replace(",", ";").encode(),
    "blank lines, a short last row, no more": [*lines()[:5], "", *lines()[5:], ",,,", "m99,1.0"],
    "missing figures": [*changed(3, 1, ""), "m98,NA,1,2,x", "m97,1,1,,x"],
    "zeros and a constant column": [lines()[0], *(f"m,0,{5 if i else 0},{1 + i % 3},x" for i in range(14))],
    "all the same cost": [lines()[0], *(f"m,{i},2,7.5,x" for i in range(14))],
    "rows twice": [*lines(), *lines()[1:]],
    "huge and tiny": [lines()[0], *(f"m,{10.0**i},{10.0**-i},{10.0**i},x" for i in range(14))],
}


@pytest.mark.parametrize("name", GOOD)
def test_odd_tables_are_read(run, name):
    result = read(run(GOOD[name]))
    part = result["parts"][""]
    if name == "missing figures":
        assert (part["rows"], part["incomplete_rows"]) == (13, 3)
    if name == "all the same cost":
        assert result["spearman"] is None
        assert result["mape_percent"] < 5


BAD = {
    "a word": (changed(2, 1, "fast"), [], "line 3, column a: 'fast' is not a number"),
    "a unit": (changed(2, 3, "7 ms"), [], "line 3, column ms: '7 ms' is not a number"),
    "infinity": (changed(2, 2, "inf"), [], "line 3, column b: 'inf' is not finite"),
    "below zero": (changed(4, 2, "-1"), [], "line 5, column b: -1: amounts of work are at least 0"),
    "no cost": (changed(4, 3, "0"), [], "line 5, column ms: 0: what is predicted must be above 0"),
    "no such column": (lines(), ["--features", "a,q"], "no column q; the file has: name, a, b, ms, kind"),
    "the target as a feature": (lines(), ["--features", "a,ms"], "--features ms: is the --target itself"),
    "a feature twice": (lines(), ["--features", "a,a"], "a is named twice"),
    "no feature": (lines(), ["--features", ","], "--features: name at least one column"),
    "a column twice": (lines(header="name,a,a,ms,kind"), [], "two columns are named a"),
    "a long row": ([*lines(), "m,1,2,3,x,4"], [], "line 16 has 6 cells, the header 5"),
    "too few rows": (lines(5), [], "has 5 complete rows"),
    "too many to fit": (lines(), ["--calibrate", "13"], "so at most 12"),
    "too few to fit": (lines(), ["--calibrate", "3"], "--calibrate 3: needs at least 4"),
    "no seeds": (lines(), ["--seeds", "0"], "--seeds 0: needs at least 1"),
    "one group": (lines(), ["--where", "kind=x", "--group-by", "kind"], "has the one value x"),
    "no group": (changed(2, 4, ""), ["--group-by", "kind"], "line 3, column kind: the row is of no group"),
    "only a header": (lines()[:1], [], "it has no rows"),
    "nothing": ([], [], "it has no rows"),
    "no file": (None, [], "cannot be read"),
    "no text": (b"\xff\xfe\x00\x01,a\n", [], "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused_with_its_place(run, name):
    content, more, message = BAD[name]
    code, out, err = run(content, *more)
    assert (code, out) == (3, "")
    assert message in err


def test_groups_are_left_out_whole_and_precisions_kept_apart(run):
    grouped = read(run(lines(), "--group-by", "kind"))
    assert (grouped["calibrate"], grouped["seeds"]) == (None, None)
    assert set(grouped["parts"][""]["mape_percent_by_group"]) == set("xyz")
    done = run([*lines(30), "m98,1,2,3,few"], "--split-by", "kind")
    result = read(done)
    assert set(result["parts"]) == set("xyz")
    assert "at least 6 are needed" in result["parts_left_out"]["few"]
    assert "left out: kind few: has 1 complete rows" in done[2]
