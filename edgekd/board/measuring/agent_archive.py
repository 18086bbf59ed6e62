"""Packs the agent as one zip application, the same bytes every time, so that a board that has it is not sent it."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.board.connection.session import Session
from edgekd.board.connection.transfer import put_files

_MAIN = "import sys\n\nfrom edgekd_board.agent.main import main\n\nsys.exit(main(sys.argv[1:]))\n"
# Packed as the board needs them, side by side as they lie here; the rest of `power` runs on the host.
_PACKAGES = ("agent", "power")
ON_HOST = frozenset({"external.py", "replay.py", "host_clock.py"})


@cache
def agent_archive() -> bytes:
    """The bytes of the zip application."""
    sources = {
        f"edgekd_board/{package}/{entry.name}": entry.read_bytes()
        for package in _PACKAGES
        for entry in resources.files(f"edgekd.board.{package}").iterdir()
        if entry.name.endswith(".py") and entry.name not in ON_HOST
    }
    sources["edgekd_board/__init__.py"] = b""
    sources["__main__.py"] = _MAIN.encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(sources):
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), sources[name])
    return packed.getvalue()


def agent_sha256() -> str:
    """The sha256 of the zip application, in hex."""
    return hashlib.sha256(agent_archive()).hexdigest()


def put_agent(session: Session) -> str:
    """Put the agent on the board, under a name that holds its hash; returns its path there.

    Raises:
        BoardError: the board refuses or the link broke.
    """
    root, name = f"{session.home}/agent", f"agent-{agent_sha256()[:16]}.pyz"
    with TemporaryDirectory(prefix="edgekd-") as directory:
        local = Path(directory) / name
        local.write_bytes(agent_archive())
        put_files(session, root, {name: local})
    return f"{root}/{name}"
