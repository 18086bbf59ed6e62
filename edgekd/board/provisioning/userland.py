"""Which Python a board has, and which wheels its userland takes."""

from __future__ import annotations

import json
from typing import Any

from edgekd.board.connection.session import Session
from edgekd.board.provisioning.bundle import ARCHITECTURES, LEAST_GLIBC, WheelTarget
from edgekd.core.board_output import parse_glibc, printable
from edgekd.errors import BoardError

LEAST_PYTHON = (3, 9)
PYTHON_NAMES = ("python3", *(f"python3.{minor}" for minor in range(14, 8, -1)), "/usr/bin/python3")

_FIND_PYTHON = (
    'for name in "$@"; do found=$(command -v -- "$name") || continue; '
    'version=$("$found" -I -c "import sys; print(*sys.version_info[:2])" 2>/dev/null) || continue; '
    'echo "$version $found"; done; exit 0'
)
_DESCRIBE = """
import json, os, platform, struct, sys
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION")
except (ValueError, OSError):
    libc = None
print(json.dumps({"machine": platform.machine(), "bits": struct.calcsize("P") * 8, "libc": libc,
                  "implementation": sys.implementation.name, "python": list(sys.version_info[:2])}))
"""
_ARM_32 = ("armv7l", "armv8l", "aarch64")


def find_python(session: Session) -> tuple[str, tuple[int, int]]:
    """The first Python there that is new enough, and its version.

    Raises:
        BoardError: there is none; says which older ones there are.
    """
    old: list[str] = []
    for path, version in pythons(session):
        if version >= LEAST_PYTHON:
            return path, version
        old.append(f"{printable(path, 100)} is {version[0]}.{version[1]}")
    found = f" ({'; '.join(dict.fromkeys(old))})" if old else ""
    raise BoardError(
        f"{session.name}: no Python 3.9 or newer there{found}. Install one (on Debian: sudo apt install python3); "
        "neither pip nor the internet is needed on the board"
    )


def pythons(session: Session) -> list[tuple[str, tuple[int, int]]]:
    """The Pythons there that start, with their versions, in the order in which they are preferred."""
    preferred = getattr(session, "preferred_python", None)
    names = ((preferred,) if preferred else ()) + PYTHON_NAMES
    found = []
    for line in session.shell(_FIND_PYTHON, *names).stdout.splitlines():
        major, minor, path = (*line.split(" ", 2), "", "", "")[:3]
        if major.isdigit() and minor.isdigit() and path.startswith("/"):
            found.append((path, (int(major[:4]), int(minor[:4]))))
    return found


def wheel_target(session: Session, python: str, version: tuple[int, int]) -> WheelTarget:
    """What wheels the board takes, asked of its Python: a 32-bit userland may run under a 64-bit kernel.

    Raises:
        BoardError: none exist for such a board; says why.
    """
    text = session.run([python, "-I", "-c", _DESCRIBE]).stdout
    try:
        described: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
        machine, bits = str(described["machine"]), int(described["bits"])
        glibc = parse_glibc(described["libc"])
        implementation = str(described["implementation"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise BoardError(
            f"{session.name}: {python} there does not describe itself: '{printable(text, 200)}'"
        ) from error
    architecture = "armv7l" if bits == 32 and machine in _ARM_32 else machine
    if architecture not in ARCHITECTURES or (bits == 32) != (architecture == "armv7l"):
        raise BoardError(
            f"{session.name}: its userland is {bits}-bit {printable(machine, 40)}; the runtimes are published as "
            f"wheels for {', '.join(ARCHITECTURES)} only. Install the 64-bit system image, or the runtime "
            f"by hand for {python}"
        )
    if glibc is None or glibc < LEAST_GLIBC:
        least = f"{LEAST_GLIBC[0]}.{LEAST_GLIBC[1]}"
        raise BoardError(
            f"{session.name}: its C library is {printable(str(described['libc']), 40)}; the runtimes' wheels need "
            f"glibc {least} or newer (Alpine and other musl systems have none)"
        )
    if implementation != "cpython":
        raise BoardError(f"{session.name}: {python} is {printable(implementation, 40)}; the runtimes need CPython")
    return WheelTarget(architecture, glibc, version)
