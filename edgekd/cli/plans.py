"""Shows what a fit would do, and what a budget that nothing meets would need."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekd.core.statistics import at_95_percent
from edgekd.errors import InfeasibleBudgetError
from edgekd.records import Estimate, FitPlan, Quantization


def frontier_json(error: InfeasibleBudgetError) -> str:
    """The answer to a budget that nothing meets, as JSON."""
    frontier = [one.model_dump(mode="json") for one in error.frontier]
    return json.dumps({"error": str(error), "frontier": frontier, "exit_code": error.exit_code}, indent=2)


def print_plan(plan: FitPlan, console: Console) -> None:
    """The plan for people."""
    console.print(
        f"[bold]{plan.profile}[/bold]: {plan.feasible} of {plan.considered} students of {plan.space} are predicted to "
        f"fit; nothing was trained",
        soft_wrap=True,
    )
    names = sorted({name for one in plan.candidates for name in one.candidate.predicted})
    table = Table("Candidate", "Parameters", "MMACs", *names, "Training at most", box=None, pad_edge=False)
    for one in plan.candidates:
        candidate = one.candidate
        costs = [_interval(candidate.predicted.get(name)) for name in names]
        macs = f"{candidate.macs / 1e6:.3g}"
        table.add_row(escape(candidate.label), str(candidate.parameters), macs, *costs, _time(one.training_s))
    console.print(table)
    console.print("in brackets: 95 % intervals; a student fits where the unfavourable end does", soft_wrap=True)
    if plan.search == "halving":
        console.print(
            f"search: at most {plan.short_runs} short runs: sizes in turn until accuracy stops rising, then others of "
            "that size and what they speak for; the most promising is trained whole",
            soft_wrap=True,
        )
    console.print(
        f"teacher {_time(plan.teacher_s)}, QAT {_time(plan.quantize_s)}, with students {_time(plan.total_s)} at most",
        soft_wrap=True,
    )
    console.print(f"then {_rounding(plan.quantize)}", soft_wrap=True)
    reason = plan.findings.get("int8-pays", {}).get("reason")
    if reason:
        console.print(f"int8: {escape(str(reason))}", soft_wrap=True)
    rows: Sequence[dict[str, object]] = plan.findings.get("board-check", {}).get("rows", ())
    for row in rows:
        console.print(
            f"  {row['candidate']}: predicted {row['predicted_ms']:.4g} ms, measured {row['measured_ms']:.4g} ms "
            f"{row['reason'] or ''}",
            soft_wrap=True,
        )


def _rounding(recipe: Quantization) -> str:
    """What follows training, in words."""
    learned = ", its ranges learned (LSQ+)" if recipe.steps == "learned" else ""
    when = {"auto": "where calibration loses too much", "always": "always", "never": ""}[recipe.qat]
    parts = ["calibration (PTQ)"]
    parts += [f"QAT {when}{learned}"] if when else []
    parts += ["the worst layers in float where too much is still lost"] if recipe.mixed else []
    parts += ["in float what has no int8 form"] if recipe.allow_float_ops else []
    parts += ["a float input and output in the .tflite file"] if recipe.float_io else []
    parts += [f"opset {recipe.opset}"] if recipe.opset else []
    return f"{recipe.scheme}: {'; '.join(parts)}"


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "unknown"
    low, high = at_95_percent(estimate)
    return f"{estimate.value:.3g} ({low:.3g} to {high:.3g})"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
