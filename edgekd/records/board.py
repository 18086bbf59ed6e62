"""What a look at a board finds: its condition, and what edgekd has put there."""

from __future__ import annotations

from typing import Literal

from edgekd.records.base import Record

Status = Literal["pass", "warn", "fail"]


class CheckItem(Record):
    """One thing looked at. `fail`: deploying cannot work; `warn`: it can, but something is lost; `advice` mends it."""

    name: str
    status: Status
    found: str
    advice: str = ""


class BoardCheck(Record):
    """All that was looked at on one board. `deployable` is False where any item fails."""

    board: str
    profile: str | None
    matches_profile: bool | None
    emulated: bool
    deployable: bool
    items: tuple[CheckItem, ...]


class Stored(Record):
    """One thing that edgekd put on a board. `in_use`: the bundle that deploys use now, or the agent of this version."""

    kind: Literal["bundle", "run", "agent", "engine", "other"]
    name: str
    size_bytes: int
    in_use: bool = False


class BoardStorage(Record):
    """Everything that edgekd has put on one board, and who holds its lock, in words."""

    board: str
    home: str
    size_bytes: int
    stored: tuple[Stored, ...]
    locked_by: str | None = None


class KnownBoard(Record):
    """A board that this machine has used, as it was then."""

    board: str
    description: str
    last_used_utc: str
    last_command: str
