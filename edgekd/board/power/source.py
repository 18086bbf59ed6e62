"""What a power meter is: where it sits, how good it is, and which rail of several is the total."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN")
"""Rails that carry all that a module draws; what else is measured beside them is a part of it."""

NESTED_RAILS = ("VDDQ_VDD2_1V8AO",)
"""Rails fed from another measured rail: adding them would count them twice."""


class MeterFailure(Exception):
    """A meter that is there but cannot be used, or is not there though it was asked for."""


@dataclass(frozen=True)
class Source:
    """One meter as found on this board.

    `grade`: B a shunt in the input rail, C a part of the rails. `interval_s` is how often reading it makes sense.
    `resolution_w` holds a reading's step and zero error, `gain` its largest relative error. `counts` says what a
    reading is: watts, or joules since some moment. `places` is what `reader` needs: paths, or rails.
    """

    meter: str
    rail: str
    grade: str
    interval_s: float
    resolution_w: float
    gain: float
    counts: str = "watts"
    places: tuple[str, ...] = ()


def read_value(path: Path) -> int:
    """The integer in a small file.

    Raises:
        OSError: it cannot be read; a disabled channel gives ENODATA.
        ValueError: it holds something else.
    """
    with path.open("rb") as file:
        return int(file.read(64).decode("ascii", errors="replace").strip())


def read_label(path: Path) -> str:
    """The text in a small file, or an empty one where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(64).decode("ascii", errors="replace").strip()
    except OSError:
        return ""


def total_of(watts: dict[str, float]) -> tuple[tuple[str, ...], str]:
    """The rails whose sum is the best total of those given, and its grade.

    A rail into which everything flows stands alone (grade B). Where there is none, all rails are added that are not
    fed from another one (grade C: what is not behind a shunt is missing).
    """
    for rail in TOTAL_RAILS:
        if rail in watts:
            return (rail,), "B"
    return tuple(rail for rail in watts if rail not in NESTED_RAILS), "C"
