r"""How well does edgekd's latency fit predict models that it was not calibrated on? On any CSV of measured models.

For each of K seeds N random rows are fitted and all others predicted. With --group-by each group (a model family) is
left out whole and predicted from all the others; --calibrate and --seeds are then ignored.
A file that holds several numeric precisions is evaluated one precision at a time: they are different machines.
Rows without a target or a feature are left out and counted; any other cell that cannot be is an error (exit 3).
In the JSON `interval_coverage_90` is a share, 0 to 1; everything named percent is 0 to 100. `spearman` is null where
all predictions or all targets are equal; `calibrate` and `seeds` are null with --group-by.

    python benchmarks/latency_model.py --data benchmarks/data/mlperf_v2.0_rpi3_tflite_ruy.csv \
        --target latency_ms --calibrate 20 --seeds 30 --where precision=fp32 --json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from latency_model_table import Row, Table, check_columns, kept_rows, read_rows, table

from edgekd.core.latency_fit import FittedCost, fit_cost
from edgekd.errors import ConfigurationError

FEATURES = ("conv_M", "pw_M", "dw_M", "fc_M", "params_M", "act_M", "layers", "se_M")
CONFIDENCE = 0.9
LEAST_FITTED = 4
SCORES = (
    "mape_percent",
    "within_5_percent",
    "within_10_percent",
    "spearman",
    "interval_coverage_90",
    "interval_coverage_90_percent",
)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """The rank correlation; None where all of one side are equal, or there are fewer than two."""
    if len(np.unique(first)) < 2 or len(np.unique(second)) < 2:
        return None
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def random_rows(data: Table, calibrate: int, seeds: int, additive_only: bool, monotone: bool) -> dict[str, Any]:
    """Fit `calibrate` random rows, predict the rest, once a seed."""
    errors, inside, correlations, by_seed = [], [], [], []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(data.targets))
        chosen, others = order[:calibrate], order[calibrate:]
        fitted = _fit(data.features[chosen], data.targets[chosen], additive_only, monotone)
        predicted, true = fitted.predict(data.features[others]), data.targets[others]
        errors.append(predicted / true - 1)
        inside.append(fitted.holds(data.features[others], true))
        correlations.append(spearman(predicted, true))
        by_seed.append(float(np.abs(errors[-1]).mean() * 100))
    found = [one for one in correlations if one is not None]
    scores = _scores(np.concatenate(errors), np.concatenate(inside), float(np.mean(found)) if found else None)
    return scores | {"mape_percent_by_seed": by_seed}


def left_out_groups(data: Table, additive_only: bool, monotone: bool) -> dict[str, Any]:
    """Predict each group from all the others."""
    groups = np.array(data.groups)
    predicted, inside = np.zeros(len(groups)), np.zeros(len(groups), dtype=bool)
    for group in sorted(set(groups)):
        out = groups == group
        known = list(groups[~out])
        fitted = _fit(
            data.features[~out], data.targets[~out], additive_only, monotone, known if len(set(known)) > 1 else None
        )
        predicted[out] = fitted.predict(data.features[out])
        inside[out] = fitted.holds(data.features[out], data.targets[out])
    errors = predicted / data.targets - 1
    by_group = {group: float(np.abs(errors[groups == group]).mean() * 100) for group in sorted(set(groups))}
    return _scores(errors, inside, spearman(predicted, data.targets)) | {"mape_percent_by_group": by_group}


def _fit(
    features: np.ndarray,
    targets: np.ndarray,
    additive_only: bool,
    monotone: bool,
    groups: list[str] | None = None,
) -> FittedCost:
    try:
        return fit_cost(features, targets, CONFIDENCE, groups, additive_only, monotone)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _scores(errors: np.ndarray, inside: np.ndarray, correlation: float | None) -> dict[str, Any]:
    return {
        "mape_percent": float(np.abs(errors).mean() * 100),
        "within_5_percent": float((np.abs(errors) <= 0.05).mean() * 100),
        "within_10_percent": float((np.abs(errors) <= 0.10).mean() * 100),
        "spearman": correlation,
        "interval_coverage_90": float(inside.mean()),
        "interval_coverage_90_percent": float(inside.mean() * 100),
        "predictions": len(errors),
    }


def pooled(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The parts' scores, weighed by how many predictions each made."""
    weights = {name: part["predictions"] for name, part in parts.items()}
    scores: dict[str, Any] = {}
    for score in SCORES:
        known = [name for name, part in parts.items() if part[score] is not None]
        scores[score] = (
            float(np.average([parts[name][score] for name in known], weights=[weights[name] for name in known]))
            if known
            else None
        )
    return scores | {"predictions": int(sum(weights.values()))}


def too_small(data: Table, arguments: argparse.Namespace) -> str:
    """Why the rows cannot be evaluated, or nothing."""
    count = len(data.targets)
    if data.groups is None:
        most = count - 2
        if most < LEAST_FITTED:
            return f"has {count} complete rows: at least {LEAST_FITTED + 2} are needed"
        if arguments.calibrate > most:
            return f"has {count} complete rows: --calibrate {arguments.calibrate} must leave two, so at most {most}"
        return ""
    sizes = {group: data.groups.count(group) for group in sorted(set(data.groups))}
    if len(sizes) < 2:
        return f"column {arguments.group_by} has the one value {', '.join(sizes)}: at least 2 groups are needed"
    largest = max(sizes, key=lambda group: sizes[group])
    if count - sizes[largest] < LEAST_FITTED:
        return f"without group {largest} {count - sizes[largest]} rows are left: at least {LEAST_FITTED} are needed"
    return ""


def split(rows: list[tuple[int, Row]], column: str) -> dict[str, list[tuple[int, Row]]]:
    """The rows by that column's value; all of them under no name where there is no such column."""
    if column not in rows[0][1]:
        return {"": rows}
    return {
        value: [(line, row) for line, row in rows if row[column] == value]
        for value in sorted({row[column] for _, row in rows})
    }


def evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    for name, least in (("calibrate", LEAST_FITTED), ("seeds", 1)):
        if getattr(arguments, name) < least:
            raise ConfigurationError(f"--{name} {getattr(arguments, name)}: needs at least {least}")
    rows = kept_rows(read_rows(arguments.data), arguments.where)
    features = [name.strip() for name in arguments.features.split(",") if name.strip()]
    check_columns(rows, arguments.target, features, arguments.group_by)
    score: Callable[[Table], dict[str, Any]] = (
        (lambda data: left_out_groups(data, arguments.additive_only, arguments.monotone))
        if arguments.group_by
        else (
            lambda data: random_rows(
                data, arguments.calibrate, arguments.seeds, arguments.additive_only, arguments.monotone
            )
        )
    )
    apart = arguments.split_by if arguments.split_by != arguments.group_by else ""
    parts, left_out = {}, {}
    for value, part in split(rows, apart).items():
        data = table(part, arguments.target, features, arguments.group_by)
        problem = too_small(data, arguments)
        if problem:
            left_out[value] = problem
            continue
        parts[value] = score(data) | {"rows": len(data.targets), "incomplete_rows": data.incomplete}
    if not parts:
        problems = "; ".join(f"{apart} {value}: {why}" if value else why for value, why in left_out.items())
        raise ConfigurationError(f"--data {arguments.data}: nothing to evaluate: {problems}")
    return pooled(parts) | {
        "calibrate": None if arguments.group_by else arguments.calibrate,
        "seeds": None if arguments.group_by else arguments.seeds,
        "group_by": arguments.group_by,
        "data": arguments.data.name,
        "where": arguments.where,
        "target": arguments.target,
        "features": features,
        "additive_only": arguments.additive_only,
        "monotone": arguments.monotone,
        "parts": parts,
        "parts_left_out": left_out,
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
    made.add_argument("--additive-only", action="store_true", help="only the plain sum of shares")
    made.add_argument(
        "--monotone", action="store_true", help="only views monotone in every feature, as calibrate needs them"
    )
    made.add_argument("--json", action="store_true")
    return made


def main() -> int:
    arguments = parser().parse_args()
    try:
        result = evaluate(arguments)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for value, problem in result["parts_left_out"].items():
        print(f"left out: {arguments.split_by} {value}: {problem}", file=sys.stderr)
    incomplete = sum(part["incomplete_rows"] for part in result["parts"].values())
    if incomplete:
        print(f"left out: {incomplete} rows without a target or a feature", file=sys.stderr)
    if arguments.json:
        print(json.dumps(result, indent=2, allow_nan=False))
        return 0
    for name, part in {**(result["parts"] if len(result["parts"]) > 1 else {}), "all": result}.items():
        rank = "none" if part["spearman"] is None else f"{part['spearman']:.4f}"
        print(
            f"{name or 'all'}: MAPE {part['mape_percent']:.2f} %, within 5 % {part['within_5_percent']:.1f} %, "
            f"within 10 % {part['within_10_percent']:.1f} %, Spearman {rank}, "
            f"90 % interval covers {100 * part['interval_coverage_90']:.1f} % of {part['predictions']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
