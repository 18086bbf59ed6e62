"""What a user writes after --board."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekd.core.board_output import printable
from edgekd.errors import ConfigurationError

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*\$?")


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed `[USER@]HOST[:PORT]`; None where the part was not given."""

    host: str
    user: str | None = None
    port: int | None = None


def parse_board(board: str) -> Address | None:
    """`local` → None; `[USER@]HOST[:PORT]` → its parts. An IPv6 address with a port stands in brackets.

    Raises:
        ConfigurationError: the text is neither.
    """
    if board == "local":
        return None
    user, at, rest = board.rpartition("@")
    port_text: str | None = None
    if rest.startswith("["):
        host, closed, after = rest[1:].partition("]")
        valid = bool(closed) and bool(_IPV6.fullmatch(host)) and ":" in host and (after == "" or after.startswith(":"))
        port_text = after[1:] if after else None
    elif rest.count(":") > 1:
        host, valid = rest, bool(_IPV6.fullmatch(rest))
    else:
        host, colon, after = rest.partition(":")
        valid = bool(_HOST.fullmatch(host))
        port_text = after if colon else None
    if port_text is not None:
        valid = valid and port_text.isascii() and port_text.isdigit() and 1 <= int(port_text[:6]) <= 65535
    if at and not _USER.fullmatch(user):
        valid = False
    if not valid:
        raise ConfigurationError(
            f"board '{printable(board, 100)}' is not understood: give `local` or [USER@]HOST[:PORT], for example "
            "pi@raspberrypi.local or pi@[fe80::1]:2222 (port 1 to 65535)"
        )
    return Address(host=host, user=user if at else None, port=int(port_text) if port_text else None)
