"""Prints a comparison of two models."""

from __future__ import annotations

import statistics

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekd.records.comparison import Comparison


def print_comparison(found: Comparison, console: Console) -> None:
    """The two sides, the ratio of their medians, and the verdict, for people."""
    console.print(f"\n[bold]Compared on {escape(found.board)}[/bold], in turn ({found.order})", soft_wrap=True)
    table = Table("", "Model", "Median", "Runtime", "Runs kept", box=None, pad_edge=False)
    for name, side in (("A", found.first), ("B", found.second)):
        table.add_row(
            name,
            escape(side.model),
            f"{statistics.median(side.medians_ms):.4g} ms",
            escape(f"{side.runtime} {side.runtime_version} ({side.provider})"),
            f"{len(side.samples_ms):,}",
        )
    console.print(table)
    ratio = found.median_ratio
    between = f"{ratio.interval[0]:.4g} to {ratio.interval[1]:.4g}" if ratio.interval else "unknown with one pair"
    console.print(
        f"ratio of medians A / B: {ratio.ratio:.4g}; {100 * ratio.confidence:.4g} % interval {between}, over "
        f"{ratio.pairs} pairs of processes (95 % over all looks)",
        soft_wrap=True,
    )
    words = {
        "faster": f"[green]A is faster than B[/green]: it takes {100 * (1 - ratio.ratio):.1f} % less time",
        "slower": f"[green]A is slower than B[/green]: it takes {100 * (ratio.ratio - 1):.1f} % more time",
        "undecided": "[yellow]undecided[/yellow]: the interval holds 1; --max-seconds allows more pairs",
    }
    console.print(words[ratio.verdict], soft_wrap=True)
    for note in found.notes:
        console.print(f"[yellow]note: {escape(note)}[/yellow]", soft_wrap=True)
