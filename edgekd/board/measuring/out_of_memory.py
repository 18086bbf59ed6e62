"""Tells a process that the kernel killed for memory from one that somebody else killed."""

from __future__ import annotations

from edgekd.board.connection.session import Session
from edgekd.core.board_output import parse_integer
from edgekd.errors import BoardError

# Counts every process that the kernel's OOM killer ended, in whatever memory cgroup (Linux 4.13 and later).
_OOM_KILLS = "while read -r name count; do [ $name = oom_kill ] && echo $count; done </proc/vmstat; exit 0"


class OutOfMemoryError(BoardError):
    """The board could not give the model's process the memory that it asked for."""


def oom_kills(session: Session) -> int | None:
    """How many processes the board's OOM killer has ended since boot; None where its kernel does not tell."""
    return parse_integer(session.shell(_OOM_KILLS, check=False).stdout.strip())
