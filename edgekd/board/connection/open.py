"""Opens a session: the one place that knows which kinds there are."""

from __future__ import annotations

from pathlib import Path

from edgekd.board.connection.address import parse_board
from edgekd.board.connection.session import Session
from edgekd.errors import ConfigurationError


def open_session(board: str, *, identity: Path | None = None, accept_new_host_key: bool = False) -> Session:
    """Open a session to `local` or `[USER@]HOST[:PORT]`.

    Args:
        board: where to.
        identity: private key file to log in with instead of the usual ones.
        accept_new_host_key: add an unknown host's key to known_hosts. A changed key is refused all the same.

    Raises:
        ConfigurationError: a malformed board, or an identity file that is not there.
        BoardError: unreachable, host key unknown or changed, login refused.
    """
    address = parse_board(board)
    if address is None:
        from edgekd.board.connection.local import LocalSession

        return LocalSession()
    if identity is not None and not identity.is_file():
        raise ConfigurationError(f"--identity {identity}: there is no such file")
    from edgekd.board.connection.ssh import SshSession

    return SshSession(board, address, identity=identity, accept_new_host_key=accept_new_host_key)
