"""Gives a board the runtime: its own where that will do, else a bundle made here and sent in one stream."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from edgekd.board.bundle import (
    ARCHITECTURES,
    LEAST_GLIBC,
    RUNTIME_PACKAGES,
    Bundle,
    RuntimePackage,
    WheelTarget,
    cached_bundle,
)
from edgekd.board.session import Session, signal_name
from edgekd.board.transfer import CHUNK_BYTES, send_tar, transfer_failure
from edgekd.core.board_output import parse_glibc, printable
from edgekd.errors import BoardError
from edgekd.records import RuntimeName

logger = logging.getLogger(__name__)

LEAST_PYTHON = (3, 9)
PYTHON_NAMES = ("python3", *(f"python3.{minor}" for minor in range(14, 8, -1)), "/usr/bin/python3")
IMPORT_TIMEOUT_S = 120.0
IMPORT_FAILED = 94

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
_IMPORT = """
import sys
site, module, package = sys.argv[1:]
if site:
    sys.path.insert(0, site)
import importlib, importlib.metadata
import numpy
importlib.import_module(module)
print("imported", importlib.metadata.version(package))
"""
_PUBLISH_BUNDLE = (
    '"$3" -I -c "$4" "$new" "$5" "$6"; code=$?; [ "$code" -eq 0 ] || { echo "import $code"; '
    f"exit {IMPORT_FAILED}; }}; find . -name __pycache__ -prune -exec rm -rf -- {{}} +; "
    '[ -e "$root/$7" ] || mv -- "$new" "$root/$7" || exit 91; exit 0'
)


@dataclass(frozen=True, slots=True)
class RuntimeEnvironment:
    """What runs the agent: a Python there, and the directory of the bundle (None: the Python has the runtime)."""

    python: str
    site: str | None
    runtime: RuntimeName
    runtime_package: str
    runtime_version: str


def provision(
    session: Session, runtime: RuntimeName, progress: Callable[[str], None] | None = None
) -> RuntimeEnvironment:
    """Make sure that a Python on the board imports the runtime, sending a bundle only where it must.

    The board needs Python 3.9 or newer, but neither pip nor the internet. A bundle is unpacked in a temporary
    directory and imported in a throw-away process before it takes its name.

    Raises:
        BoardError: no such Python, no wheels for this board, the import fails or crashes there, or the link broke.
    """
    say = progress or (lambda message: None)
    package = RUNTIME_PACKAGES[runtime]
    python, version = find_python(session)
    own = _imported_version(session, python, "", package)
    if own is not None and _new_enough(own, package):
        logger.info("%s: %s has %s %s", session.name, python, package.package, own)
        return RuntimeEnvironment(python, None, runtime, package.package, own)
    target = _wheel_target(session, python, version)
    say(f"resolving {package.package} for {target.architecture}, Python {version[0]}.{version[1]}")
    bundle = cached_bundle(runtime, target)
    site = f"{session.home}/bundles/{bundle.identity}"
    there = session.shell('[ -d "$1" ]', site, check=False).succeeded
    found = _imported_version(session, python, site, package) if there else None
    if found is None:
        say(f"sending {package.package} ({bundle.size_bytes / 2**20:.0f} MiB)")
        found = _send(session, python, package, bundle, replace=there)
    return RuntimeEnvironment(python, site, runtime, package.package, found)


def find_python(session: Session) -> tuple[str, tuple[int, int]]:
    """The first Python there that is new enough, and its version.

    Raises:
        BoardError: there is none; says which older ones there are.
    """
    preferred = getattr(session, "preferred_python", None)
    names = ((preferred,) if preferred else ()) + PYTHON_NAMES
    old: list[str] = []
    for line in session.shell(_FIND_PYTHON, *names).stdout.splitlines():
        major, minor, path = (*line.split(" ", 2), "", "", "")[:3]
        if not (major.isdigit() and minor.isdigit() and path.startswith("/")):
            continue
        version = (int(major), int(minor))
        if version >= LEAST_PYTHON:
            return path, version
        old.append(f"{printable(path, 100)} is {version[0]}.{version[1]}")
    found = f" ({'; '.join(dict.fromkeys(old))})" if old else ""
    raise BoardError(
        f"{session.name}: no Python 3.9 or newer there{found}. Install one (on Debian: sudo apt install python3); "
        "neither pip nor the internet is needed on the board"
    )


def _new_enough(version: str, package: RuntimePackage) -> bool:
    try:
        return Version(version) >= Version(package.least_version)
    except InvalidVersion:
        return False


def _imported_version(session: Session, python: str, site: str, package: RuntimePackage) -> str | None:
    """The version of the runtime that a throw-away process there imports, or None."""
    command = [python, "-I", "-c", _IMPORT, site, package.module, package.package]
    return _version_in(session.run(command, timeout_s=IMPORT_TIMEOUT_S, check=False).stdout)


def _version_in(stdout: str) -> str | None:
    found = [line.removeprefix("imported ") for line in stdout.splitlines() if line.startswith("imported ")]
    return printable(found[-1], 50) if found else None


def _wheel_target(session: Session, python: str, version: tuple[int, int]) -> WheelTarget:
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
    if machine not in ARCHITECTURES or bits != 64:
        raise BoardError(
            f"{session.name}: its userland is {bits}-bit {printable(machine, 40)}; the runtimes are published as "
            f"wheels for 64-bit {' and '.join(ARCHITECTURES)} only. Install the 64-bit system image, or the runtime "
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
    return WheelTarget(machine, glibc, version)


def _send(session: Session, python: str, package: RuntimePackage, bundle: Bundle, *, replace: bool) -> str:
    root = f"{session.home}/bundles"
    if replace:
        session.shell('rm -rf -- "$1"', f"{root}/{bundle.identity}", timeout_s=120.0)
    arguments = (python, _IMPORT, package.module, package.package, bundle.identity)
    result = send_tar(session, root, _read_chunks(bundle.path), bundle.size_bytes, _PUBLISH_BUNDLE, *arguments)
    version = _version_in(result.stdout)
    if result.exit_code == IMPORT_FAILED:
        raise _import_failure(session, package, result.stdout, result.stderr)
    if not result.succeeded or version is None:
        raise transfer_failure(session, root, result)
    return version


def _import_failure(session: Session, package: RuntimePackage, stdout: str, stderr: str) -> BoardError:
    word = next((line.split()[-1] for line in stdout.splitlines() if line.startswith("import ")), "?")
    code = int(word) if word.isdigit() else 0
    said = printable(stderr.strip()[-300:], 300)
    if code > 128:
        name = signal_name(code - 128)
        said = f"it was killed by {name}" + (
            ": the wheel uses instructions that this CPU lacks" if name == "SIGILL" else f" {said}"
        )
    return BoardError(
        f"{session.name}: {package.package} was unpacked there but cannot be imported: {said}. The bundle was removed "
        "and what was there before still works; a missing library is installed with the board's own package manager "
        "(libstdc++6 for numpy)"
    )


def _read_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
