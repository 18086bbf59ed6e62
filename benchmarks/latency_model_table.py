"""A CSV of measured models as numbers, or an error that names the row, the column and the value."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.errors import ConfigurationError

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-"})
"""What stands in cells that hold no figure, in small letters."""

Row = dict[str, str]


@dataclass(frozen=True)
class Table:
    """Measured models: features (rows, columns), targets (rows,), and a group for each row or None.

    `incomplete`: rows left out because their target or one of their features is missing.
    """

    features: np.ndarray
    targets: np.ndarray
    groups: list[str] | None
    incomplete: int


def read_rows(path: Path) -> list[tuple[int, Row]]:
    """The lines of the file and the cells of each by column, without what surrounds them.

    Separated by commas, or by semicolons or tabs where the header has those and no comma.

    Raises:
        ConfigurationError: no such file, no header, no rows, a column named twice, a row longer than the header.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--data {path}: cannot be read: {error}") from None
    header = next((line for line in lines if line.strip()), "")
    separator = "," if "," in header else next((one for one in ";\t" if one in header), ",")
    reader = csv.reader(lines, delimiter=separator)
    found: list[tuple[int, list[str]]] = []
    try:
        found = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise ConfigurationError(f"--data {path}: line {reader.line_num}: {error}") from None
    if len(found) < 2:
        raise ConfigurationError(f"--data {path}: needs a header line and rows of measured models, it has no rows")
    names = [cell.strip() for cell in found[0][1]]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"--data {path}: two columns are named {', '.join(twice)}: rename or remove one")
    rows = []
    for line, cells in found[1:]:
        if any(cell.strip() for cell in cells[len(names) :]):
            raise ConfigurationError(f"--data {path}: line {line} has {len(cells)} cells, the header {len(names)}")
        padded = [*cells, *[""] * len(names)]
        rows.append((line, {name: cell.strip() for name, cell in zip(names, padded, strict=False) if name}))
    return rows


def kept_rows(rows: list[tuple[int, Row]], conditions: list[str]) -> list[tuple[int, Row]]:
    """The rows that fulfil every COLUMN=VALUE.

    Raises:
        ConfigurationError: a condition that is none, of no column of the file, or that no row fulfils.
    """
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals or name not in rows[0][1]:
            raise ConfigurationError(f"--where {condition}: give COLUMN=VALUE with a column of the file")
        found = sorted({row[name] for _, row in rows})
        rows = [(line, row) for line, row in rows if row[name] == value]
        if not rows:
            raise ConfigurationError(f"--where {condition}: no row is left; column {name} has: {', '.join(found[:12])}")
    return rows


def check_columns(rows: list[tuple[int, Row]], target: str, features: list[str], group_by: str | None) -> None:
    """Raise a ConfigurationError where the wanted columns are not in the file, or cannot be what they are to be."""
    names = list(rows[0][1])
    if not features:
        raise ConfigurationError("--features: name at least one column")
    missing = [name for name in [target, *features, *([group_by] if group_by else [])] if name not in names]
    if missing:
        raise ConfigurationError(
            f"no column {', '.join(missing)}; the file has: {', '.join(names)} (choose with --target, --features)"
        )
    if target in features:
        raise ConfigurationError(f"--features {target}: is the --target itself, which would predict it from itself")
    twice = sorted({name for name in features if features.count(name) > 1})
    if twice:
        raise ConfigurationError(f"--features: {', '.join(twice)} is named twice")


def table(rows: list[tuple[int, Row]], target: str, features: list[str], group_by: str | None) -> Table:
    """The rows that have a target and all features, as numbers.

    Raises:
        ConfigurationError: a cell that is no number, a target that is not positive, a negative feature, no group.
    """
    complete = [(line, row) for line, row in rows if not any(_missing(row[name]) for name in [target, *features])]
    values = [[_number(line, row, name, name == target) for name in [target, *features]] for line, row in complete]
    for line, row in complete if group_by else []:
        if not row[group_by or ""]:
            raise ConfigurationError(f"line {line}, column {group_by}: the row is of no group; name one or remove it")
    numbers = np.array(values).reshape(len(complete), 1 + len(features))
    groups = [row[group_by] for _, row in complete] if group_by else None
    return Table(numbers[:, 1:], numbers[:, 0], groups, len(rows) - len(complete))


def _missing(cell: str) -> bool:
    return cell.lower() in MISSING


def _number(line: int, row: Row, name: str, is_target: bool) -> float:
    try:
        value = float(row[name])
    except ValueError:
        raise ConfigurationError(
            f"line {line}, column {name}: '{row[name]}' is not a number (decimal point, no unit; empty where unknown)"
        ) from None
    if not math.isfinite(value):
        raise ConfigurationError(f"line {line}, column {name}: '{row[name]}' is not finite")
    if is_target and value <= 0:
        raise ConfigurationError(f"line {line}, column {name}: {row[name]}: what is predicted must be above 0")
    if value < 0:
        raise ConfigurationError(f"line {line}, column {name}: {row[name]}: amounts of work are at least 0")
    return value
