"""What every part of a report on a terminal is made of."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekd.report.wording import plain


def heading(console: Console, text: str) -> None:
    """A section's title after an empty line."""
    console.print()
    console.print(Text(text, style="bold"))


def item(console: Console, text: str, style: str = "") -> None:
    """A bullet whose further lines are indented."""
    grid = Table.grid(padding=(0, 1))
    grid.add_row("-", Text(plain(text), style=style))
    console.print(grid)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table without lines; the columns of `right` are flush right."""
    found = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        found.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return found
