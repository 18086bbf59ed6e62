r"""How well does edgekd's latency fit predict models that it was not calibrated on? On any CSV of measured models.

For each of K seeds N random rows are fitted and all others predicted. With --group-by each group (a model family) is
left out whole and predicted from all the others; --calibrate and --seeds are then ignored.
A file that holds several numeric precisions is evaluated one precision at a time: they are different machines.

    python benchmarks/latency_model.py --data benchmarks/data/mlperf_v2.0_rpi3_tflite_ruy.csv \
        --target latency_ms --calibrate 20 --seeds 30 --where precision=fp32 --json
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.core.latency_fit import FittedCost, fit_cost
from edgekd.errors import ConfigurationError

FEATURES = ("conv_M", "pw_M", "dw_M", "fc_M", "params_M", "act_M", "layers", "se_M")
CONFIDENCE = 0.9


@dataclass(frozen=True)
class Table:
    """Measured models: features (rows, columns), targets (rows,), and a group for each row or None."""

    features: np.ndarray
    targets: np.ndarray
    groups: list[str] | None


def read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--data {path}: cannot be read: {error}") from None
    if not rows:
        raise ConfigurationError(f"--data {path}: has no rows")
    return rows


def table(rows: list[dict[str, str]], target: str, features: list[str], group_by: str | None) -> Table:
    """The rows that have a target, as numbers."""
    wanted = [target, *features, *([group_by] if group_by else [])]
    missing = [name for name in wanted if name not in rows[0]]
    if missing:
        raise ConfigurationError(f"no column {', '.join(missing)}; the file has: {', '.join(rows[0])}")
    kept = [row for row in rows if row[target].strip()]

    def number(row: dict[str, str], name: str) -> float:
        try:
            return float(row[name])
        except ValueError:
            raise ConfigurationError(f"column {name}: '{row[name]}' is not a number") from None

    return Table(
        np.array([[number(row, name) for name in features] for row in kept]).reshape(len(kept), len(features)),
        np.array([number(row, target) for row in kept]),
        [row[group_by] for row in kept] if group_by else None,
    )


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def random_rows(data: Table, calibrate: int, seeds: int, additive_only: bool) -> dict[str, Any]:
    """Fit `calibrate` random rows, predict the rest, once a seed."""
    if not 4 <= calibrate <= len(data.targets) - 2:
        raise ConfigurationError(f"--calibrate {calibrate}: needs 4 to {len(data.targets) - 2} of the file's rows")
    errors, inside, correlations, by_seed = [], [], [], []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(data.targets))
        chosen, others = order[:calibrate], order[calibrate:]
        fitted = _fit(data.features[chosen], data.targets[chosen], additive_only)
        predicted, true = fitted.predict(data.features[others]), data.targets[others]
        errors.append(predicted / true - 1)
        inside.append(np.abs(np.log(true / predicted)) <= fitted.half_width)
        correlations.append(spearman(predicted, true))
        by_seed.append(float(np.abs(errors[-1]).mean() * 100))
    scores = _scores(np.concatenate(errors), np.concatenate(inside), float(np.mean(correlations)))
    return scores | {"mape_percent_by_seed": by_seed}


def left_out_groups(data: Table, additive_only: bool) -> dict[str, Any]:
    """Predict each group from all the others."""
    groups = np.array(data.groups)
    if len(set(groups)) < 3:
        raise ConfigurationError(f"--group-by: needs at least 3 groups, found {sorted(set(groups))}")
    predicted, inside = np.zeros(len(groups)), np.zeros(len(groups), dtype=bool)
    for group in sorted(set(groups)):
        out = groups == group
        fitted = _fit(data.features[~out], data.targets[~out], additive_only, list(groups[~out]))
        predicted[out] = fitted.predict(data.features[out])
        inside[out] = np.abs(np.log(data.targets[out] / predicted[out])) <= fitted.half_width
    errors = predicted / data.targets - 1
    by_group = {group: float(np.abs(errors[groups == group]).mean() * 100) for group in sorted(set(groups))}
    return _scores(errors, inside, spearman(predicted, data.targets)) | {"mape_percent_by_group": by_group}


def _fit(features: np.ndarray, targets: np.ndarray, additive_only: bool, groups: list[str] | None = None) -> FittedCost:
    try:
        return fit_cost(features, targets, CONFIDENCE, groups, additive_only)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _scores(errors: np.ndarray, inside: np.ndarray, correlation: float) -> dict[str, Any]:
    return {
        "mape_percent": float(np.abs(errors).mean() * 100),
        "within_5_percent": float((np.abs(errors) <= 0.05).mean() * 100),
        "within_10_percent": float((np.abs(errors) <= 0.10).mean() * 100),
        "spearman": correlation,
        "interval_coverage_90": float(inside.mean()),
        "predictions": len(errors),
    }


def pooled(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The parts' scores, weighed by how many predictions each made."""
    names = ("mape_percent", "within_5_percent", "within_10_percent", "spearman", "interval_coverage_90")
    weights = [part["predictions"] for part in parts.values()]
    scores = {name: float(np.average([part[name] for part in parts.values()], weights=weights)) for name in names}
    return scores | {"predictions": int(sum(weights))}


def evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    rows = read_rows(arguments.data)
    for condition in arguments.where:
        name, equals, value = condition.partition("=")
        if not equals or name not in rows[0]:
            raise ConfigurationError(f"--where {condition}: give COLUMN=VALUE with a column of the file")
        rows = [row for row in rows if row[name] == value]
        if not rows:
            raise ConfigurationError(f"--where {condition}: no row is left")
    features = [name.strip() for name in arguments.features.split(",") if name.strip()]
    apart = arguments.split_by if arguments.split_by in rows[0] else None
    score: Callable[[Table], dict[str, Any]] = (
        (lambda data: left_out_groups(data, arguments.additive_only))
        if arguments.group_by
        else (lambda data: random_rows(data, arguments.calibrate, arguments.seeds, arguments.additive_only))
    )
    parts = {}
    for value in sorted({row[apart] for row in rows}) if apart else [""]:
        part = [row for row in rows if not apart or row[apart] == value]
        data = table(part, arguments.target, features, arguments.group_by)
        if not len(data.targets):
            continue
        parts[value] = score(data) | {"rows": len(data.targets), "rows_without_target": len(part) - len(data.targets)}
    if not parts:
        raise ConfigurationError(f"column {arguments.target} is empty in every row")
    return pooled(parts) | {
        "calibrate": None if arguments.group_by else arguments.calibrate,
        "seeds": None if arguments.group_by else arguments.seeds,
        "group_by": arguments.group_by,
        "data": arguments.data.name,
        "where": arguments.where,
        "target": arguments.target,
        "features": features,
        "additive_only": arguments.additive_only,
        "parts": parts,
    }


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True, help="CSV with a header line, one measured model a row")
    made.add_argument("--target", default="latency_ms", help="column to predict; rows where it is empty are left out")
    made.add_argument("--calibrate", type=int, default=20, metavar="N", help="rows to fit")
    made.add_argument("--seeds", type=int, default=30, metavar="K", help="random draws of those rows, seeds 0 to K-1")
    made.add_argument("--features", default=",".join(FEATURES), help="feature columns, comma separated")
    made.add_argument("--group-by", metavar="COLUMN", help="leave one group out at a time")
    made.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="keep only these rows")
    made.add_argument("--split-by", default="precision", metavar="COLUMN", help="evaluate its values apart")
    made.add_argument("--additive-only", action="store_true", help="only the additive, monotone part of the fit")
    made.add_argument("--json", action="store_true")
    return made


def main() -> int:
    arguments = parser().parse_args()
    try:
        result = evaluate(arguments)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if arguments.json:
        print(json.dumps(result, indent=2))
        return 0
    for name, part in {**(result["parts"] if len(result["parts"]) > 1 else {}), "all": result}.items():
        print(
            f"{name or 'all'}: MAPE {part['mape_percent']:.2f} %, within 5 % {part['within_5_percent']:.1f} %, "
            f"within 10 % {part['within_10_percent']:.1f} %, Spearman {part['spearman']:.4f}, "
            f"90 % interval covers {100 * part['interval_coverage_90']:.1f} % of {part['predictions']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
