"""The rows as tables: mean, spread and cost of each case, with the paired gain over scratch.

python benchmarks/distillation/summary.py
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from edgekd.pipeline.distillation.ablation import paired_t_interval

RESULTS = Path(__file__).resolve().parent / "results"
Rows = list[dict[str, Any]]


def spread(values: list[float]) -> str:
    """Mean and, of two or more, standard deviation, in percent."""
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * statistics.stdev(values):.1f}"


def ends(differences: list[float]) -> str:
    """The 95 % interval of a mean difference by a paired t-test over seeds, in percent; of three seeds or more."""
    interval = paired_t_interval(differences) if len(differences) > 2 else None
    return "" if interval is None else f" [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]"


def table(rows: Rows) -> list[str]:
    """One line a case, best mean validation accuracy first."""
    cases: dict[str, Rows] = defaultdict(list)
    for row in rows:
        cases[row["case"]].append(row)
    lines = [
        "| case | seeds | validation | test | scratch | gain | teacher | agreement | ECE | s | all steps |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    order = sorted(cases, key=lambda name: -statistics.mean(row["val_accuracy"] for row in cases[name]))
    for name in order:
        found = cases[name]
        gains = [row["accuracy"] - row["scratch_accuracy"] for row in found]
        cells = [
            name,
            str(len(found)),
            spread([row["val_accuracy"] for row in found]),
            spread([row["accuracy"] for row in found]),
            spread([row["scratch_accuracy"] for row in found]),
            spread(gains) + ends(gains),
            spread([row["teacher_accuracy"] for row in found]),
            spread([row["agreement"] for row in found]),
            f"{statistics.mean(row['ece'] for row in found):.3f}",
            f"{statistics.mean(row['seconds'] for row in found):.0f}",
            f"{statistics.mean(row['total_steps'] for row in found):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def picked(rows: Rows, teacher: str) -> str:
    """The few-label recipe with the best mean validation accuracy, among those that ran on the most seeds."""
    few = [row for row in rows if row["case"].startswith(f"few labels, teacher of {teacher},")]
    if not few:
        return f"few labels, teacher of {teacher}: no rows yet"
    cases: dict[str, Rows] = defaultdict(list)
    for row in few:
        cases[row["case"]].append(row)
    most = max(len(found) for found in cases.values())
    whole = {name: found for name, found in cases.items() if len(found) == most}
    best = max(whole, key=lambda name: statistics.mean(row["val_accuracy"] for row in whole[name]))
    gains = [row["accuracy"] - row["scratch_accuracy"] for row in whole[best]]
    return (
        f"- teacher of {teacher} labels: validation picks “{best.split(', ', 2)[2]}”: "
        f"{spread([row['accuracy'] for row in whole[best]])} against "
        f"{spread([row['scratch_accuracy'] for row in whole[best]])} from scratch on the same labels, "
        f"gain {spread(gains)} points ({most} seed{'s' if most > 1 else ''})"
    )


def beside(rows: Rows) -> list[str]:
    """Both loops by task: accuracies, the mean difference with its 95 % interval over seeds, and speed."""
    lines = [
        "| task | seeds | edgekd | torchdistill | difference | images per CPU s, edgekd / torchdistill |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        found = [row for row in rows if row["task"] == task]
        differences = [row["edgekd_accuracy"] - row["torchdistill_accuracy"] for row in found]
        ratios = [row["speed_ratio_cpu"] for row in found]
        cells = [
            task,
            str(len(found)),
            spread([row["edgekd_accuracy"] for row in found]),
            spread([row["torchdistill_accuracy"] for row in found]),
            f"{100 * statistics.mean(differences):+.1f}{ends(differences)}",
            f"{statistics.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Print the tables."""
    for path in (RESULTS / "watch-gestures.jsonl", RESULTS / "fashion-mnist.jsonl"):
        if not path.exists():
            continue
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        print(f"### {path.stem}\n\nFew labels:\n")
        for teacher in ("labelled", "all"):
            print(picked(rows, teacher))
        for title, few in (("Every label", False), ("Few labels", True)):
            chosen = [row for row in rows if row["case"].startswith("few") == few]
            if chosen:
                print(f"\n{title} ({chosen[0]['labelled']} labels, {chosen[0]['params']} parameters):\n")
                print("\n".join(table(chosen)))
        print()
    rows = [json.loads(line) for line in (RESULTS / "beside_torchdistill.jsonl").read_text().splitlines()]
    print("### Beside torchdistill\n")
    print("\n".join(beside(rows)))


if __name__ == "__main__":
    main()
