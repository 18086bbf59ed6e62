r"""How wrong are predictions of networks smaller than all that were measured, and on which side?

Each table's rows are put in order of their MACs; the larger 70, 50 and 30 % are fitted by the additive fit that
profiles keep, and the smaller ones that lie below its hull predicted. Printed: how far below they lie, how often the
truth lay under the upper end and over the lower end of the stated 90 % interval, and within both; for comparison the
same with `widening` both ways for every e-fold, the rule before.

    python benchmarks/latency_model/below_hull.py benchmarks/data/mlperf_v2.0_rpi3_tflite_ruy.csv
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from edgekd.core.latency_fit import conformal_half_width, held_out_log_errors
from edgekd.core.latency_interval import DOWNWARD, UPWARD_FOLDS
from edgekd.core.latency_views import additive_shares

MLPERF = ["conv_M", "pw_M", "dw_M", "fc_M", "params_M", "act_M", "layers", "se_M"]
MLPERF_MACS = MLPERF[:4]
WIDENING = 0.25
FITTED_SHARES = (0.7, 0.5, 0.3)


def sets(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Features and costs by name, a set for each precision and target, smallest network first."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    students = "scheme" in rows[0]
    features = [name for name in rows[0] if "." in name] if students else MLPERF
    work = [name for name in features if name.startswith("macs")] if students else MLPERF_MACS
    found = {}
    for target in ("latency_ms",) if students else ("latency_ms", "energy_mJ_per_query"):
        for precision in sorted({row["scheme" if students else "precision"] for row in rows}):
            chosen = [row for row in rows if row["scheme" if students else "precision"] == precision]
            chosen = [row for row in chosen if row[target].strip()]
            if not chosen:
                continue
            chosen.sort(key=lambda row: sum(float(row[name] or 0) for name in work))
            table = np.array([[float(row[name] or 0) for name in features] for row in chosen])
            found[f"{target} {precision}"] = table, np.array([float(row[target]) for row in chosen])
    return found


def held(table: np.ndarray, costs: np.ndarray, fitted: float) -> tuple[np.ndarray, np.ndarray, float]:
    """log(true / predicted) and e-folds below the hull of the rows below it, and the half width inside it."""
    smaller = round(len(costs) * (1 - fitted))
    columns = np.column_stack([np.ones(len(costs)), table])

    def learn(rows, targets):
        shares, floor = additive_shares(rows, targets), 1e-3 * targets.min()
        return lambda new: np.maximum(new @ shares, floor)

    half = conformal_half_width(held_out_log_errors(learn, columns[smaller:], costs[smaller:]), 0.9)
    edge = table[smaller:].min(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        folds = np.where((table > 0) & (table < edge), np.log(edge / table), 0.0).max(axis=1)[:smaller]
    errors = np.log(costs / learn(columns[smaller:], costs[smaller:])(columns))[:smaller]
    return errors[folds > 0], folds[folds > 0], half


def main() -> None:
    print("| table | fitted | below | folds at most | under upper end % | over lower end % | both % | both, before % |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    total = []
    for path in map(Path, sys.argv[1:]):
        for name, (table, costs) in sets(path).items():
            for share in FITTED_SHARES:
                errors, folds, half = held(table, costs, share)
                under = errors <= half + WIDENING * np.minimum(folds, UPWARD_FOLDS)
                over = errors >= -half - WIDENING * DOWNWARD * folds
                before = np.abs(errors) <= half + WIDENING * folds
                total.append((under, over, under & over, before))
                figures = " | ".join(f"{100 * float(one.mean()):.0f}" for one in total[-1])
                label = f"{path.stem}, {name}"
                print(f"| {label} | {share:.0%} | {len(errors)} | {folds.max():.1f} | {figures} |")
    figures = " | ".join(f"{100 * float(np.concatenate(one).mean()):.1f}" for one in zip(*total, strict=True))
    print(f"| all | | {sum(len(one[0]) for one in total)} | | {figures} |")


if __name__ == "__main__":
    main()
