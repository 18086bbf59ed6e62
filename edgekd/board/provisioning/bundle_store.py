"""The bundles on a board: sent so that a broken transfer goes on, imported before use, switched atomically, few kept.

In `bundles/` of edgekd's directory there, each bundle has a directory named by its identity, and `current-RUNTIME` is
a symbolic link to the one in use. A bundle that is being sent lies there as `.partial-SHA256` until it is complete.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path

from edgekd.board.connection.session import NO_CACHE, Session, signal_name
from edgekd.board.connection.transfer import (
    CHUNK_BYTES,
    IDLE_TIMEOUT_S,
    PREPARE,
    SUMS_NAME,
    TRANSFER_TIMEOUT_S,
    require_room,
    transfer_failure,
)
from edgekd.board.provisioning.bundle import Bundle, RuntimePackage
from edgekd.core.board_output import parse_integer, printable
from edgekd.errors import BoardError
from edgekd.records import RuntimeName

logger = logging.getLogger(__name__)

OLD_BUNDLES_KEPT = 2
IMPORT_TIMEOUT_S = 120.0
IMPORT_FAILED = 94
_IDENTITY = re.compile(r"[0-9a-f]{16}")

_IMPORT = """
import sys
site, module, *names = sys.argv[1:]
if site:
    sys.path.insert(0, site)
import importlib, importlib.metadata
import numpy
found = importlib.import_module(module)
# What the module itself says comes first: a distribution of another name may lie elsewhere on the path.
version = getattr(found, "__version__", None)
for name in [] if version else names:
    try:
        version = importlib.metadata.version(name)
        break
    except importlib.metadata.PackageNotFoundError:
        pass
print("imported", version or "unknown")
"""
# $1: bundles/, $2: name of the partial file. What another interrupted transfer left goes; prints the size of ours.
_RESUME = (
    'mkdir -p -- "$1" || exit 91; cd -- "$1" || exit 91; '
    'for p in .partial-*; do [ "$p" = "$2" ] || rm -f -- "$p"; done; '
    '[ -f "$2" ] && wc -c <"$2"; exit 0'
)
# A full disk must not keep what can never be completed there.
_APPEND = 'cd -- "$1" || exit 91; cat >>"$2" || { rm -f -- "$2"; exit 92; }'
_UNZIP_WITH_PYTHON = "import gzip,shutil,sys; shutil.copyfileobj(gzip.open(sys.argv[1]), sys.stdout.buffer)"
# $3: partial file, $4: its sha256, $5: identity, $6: Python, $7: unzip code, $8: import code, $9…: its arguments.
_INSTALL = (
    PREPARE + 'mkdir -m 700 -- "$new" || exit 91; cd -- "$new" || exit 91; partial=$root/$3; '
    'sum=$(sha256sum <"$partial") || exit 93; [ "${sum%% *}" = "$4" ] || { rm -f -- "$partial"; exit 93; }; '
    'if command -v gzip >/dev/null; then gzip -dc <"$partial"; else "$6" -I -c "$7" "$partial"; fi | tar -xf - || '
    '{ rm -f -- "$partial"; exit 92; }; '
    f'sha256sum -c {SUMS_NAME} >/dev/null || {{ rm -f -- "$partial"; exit 93; }}; rm -f -- "$partial"; '
    "identity=$5; python=$6; code=$8; shift 8; "
    f'{NO_CACHE} "$python" -I -c "$code" "$new" "$@"; code=$?; '
    '[ "$code" -eq 0 ] || { echo "import $code"; '
    f"exit {IMPORT_FAILED}; }}; find . -name __pycache__ -prune -exec rm -rf -- {{}} +; "
    'rm -rf -- "$root/$identity"; mv -- "$new" "$root/$identity" || exit 91; exit 0'
)
_USE = (
    'cd -- "$1" || exit 91; touch -c -- "$2"; [ "$(readlink "current-$3")" = "$2" ] || '
    '{ ln -sfn -- "$2" ".next-$3" && mv -fT -- ".next-$3" "current-$3" || exit 91; }; '
    'echo newest; ls -1t; echo current; for l in current-*; do readlink "$l"; done; exit 0'
)
_REMOVE = 'cd -- "$1" || exit 0; shift; rm -rf -- "$@"'


class ImportFailedError(BoardError):
    """A bundle arrived whole, but the board cannot import what is in it."""


class BundleStore:
    """The bundles of one runtime on one board."""

    def __init__(self, session: Session, python: str, runtime: RuntimeName, package: RuntimePackage) -> None:
        self._session = session
        self._python = python
        self._runtime = runtime
        self._package = package
        self.root = f"{session.home}/bundles"

    def site(self, identity: str) -> str:
        """The directory of a bundle there."""
        return f"{self.root}/{identity}"

    def version_of(self, identity: str) -> str | None:
        """The version that a bundle there imports as; None where it is missing or cannot be imported."""
        if not self._session.shell('[ -d "$1" ]', self.site(identity), check=False).succeeded:
            return None
        return imported_version(self._session, self._python, self.site(identity), self._package)

    def current(self) -> str | None:
        """The identity of the bundle that was in use last, or None."""
        said = self._session.shell('readlink "$1"', f"{self.root}/current-{self._runtime}", check=False).stdout.strip()
        return said if _IDENTITY.fullmatch(said) else None

    def install(self, bundle: Bundle, say: Callable[[str], None]) -> str:
        """Send a bundle, from where an earlier transfer broke off, and import it; returns the version imported.

        Raises:
            ImportFailedError: it cannot be imported there; it was removed again.
            BoardError: the board is full, read-only, damaged the data, or the link broke. After a broken link what
                arrived stays, and the next transfer goes on from there.
        """
        session, partial = self._session, f".partial-{bundle.sha256}"
        resumed = session.shell(_RESUME, self.root, partial, timeout_s=120.0, check=False)
        if not resumed.succeeded:
            raise transfer_failure(session, self.root, resumed)
        have = parse_integer(resumed.stdout) or 0
        if not 0 <= have <= bundle.size_bytes:
            session.shell(_REMOVE, self.root, partial)
            have = 0
        if have:
            say(f"{have / 2**20:.0f} of {bundle.size_bytes / 2**20:.0f} MiB arrived earlier: going on from there")
        require_room(session, self.root, bundle.size_bytes - have + bundle.unpacked_bytes)
        if have < bundle.size_bytes:
            command = ["sh", "-c", _APPEND, "edgekd", self.root, partial]
            sent = session.send(
                command, _chunks(bundle.path, have), timeout_s=TRANSFER_TIMEOUT_S, idle_timeout_s=IDLE_TIMEOUT_S
            )
            if not sent.succeeded:
                raise transfer_failure(session, self.root, sent)
        arguments = [partial, bundle.sha256, bundle.identity, self._python, _UNZIP_WITH_PYTHON, _IMPORT]
        arguments += [self._package.module, *self._package.distributions]
        done = session.shell(
            _INSTALL, self.root, secrets.token_hex(4), *arguments, timeout_s=TRANSFER_TIMEOUT_S, check=False
        )
        if done.exit_code == IMPORT_FAILED:
            raise _import_failure(session, self._package, done.stdout, done.stderr)
        version = _version_in(done.stdout)
        if not done.succeeded or version is None:
            raise transfer_failure(session, self.root, done)
        return version

    def use(self, identity: str) -> None:
        """Make a bundle the current one, atomically, and remove all old ones but the OLD_BUNDLES_KEPT used last."""
        said = self._session.shell(_USE, self.root, identity, self._runtime, check=False)
        if not said.succeeded:
            raise transfer_failure(self._session, self.root, said)
        newest, _, current = said.stdout.partition("current\n")
        superfluous = superfluous_bundles(newest.splitlines(), {identity, *current.split()}, OLD_BUNDLES_KEPT)
        if superfluous:
            self._session.shell(_REMOVE, self.root, *superfluous, timeout_s=300.0)
            logger.info("%s: removed %d old bundles", self._session.name, len(superfluous))


def superfluous_bundles(newest_first: Sequence[str], current: Set[str], keep: int) -> list[str]:
    """Which of the names in `bundles/` to remove: bundles that are not current, but for the `keep` used last.

    Names that are no identities are never among them, whatever the board says.
    """
    old = [name for name in newest_first if _IDENTITY.fullmatch(name) and name not in current]
    return old[keep:]


def imported_version(session: Session, python: str, site: str, package: RuntimePackage) -> str | None:
    """The version of the runtime that a throw-away process there imports, or None."""
    command = ["env", NO_CACHE, python, "-I", "-c", _IMPORT, site, package.module, *package.distributions]
    return _version_in(session.run(command, timeout_s=IMPORT_TIMEOUT_S, check=False).stdout)


def _version_in(stdout: str) -> str | None:
    found = [line.removeprefix("imported ") for line in stdout.splitlines() if line.startswith("imported ")]
    return printable(found[-1], 50) if found else None


def _import_failure(session: Session, package: RuntimePackage, stdout: str, stderr: str) -> ImportFailedError:
    word = next((line.split()[-1] for line in stdout.splitlines() if line.startswith("import ")), "?")
    code = int(word) if word.isdigit() else 0
    said = printable(stderr.strip()[-300:], 300)
    if code > 128:
        name = signal_name(code - 128)
        said = f"it was killed by {name}" + (
            ": the wheel uses instructions that this CPU lacks" if name == "SIGILL" else f" {said}"
        )
    return ImportFailedError(
        f"{session.name}: {package.package} was unpacked there but cannot be imported: {said}. The bundle was removed "
        "and what was there before still works; a missing library is installed with the board's own package manager "
        "(libstdc++6 for numpy; python3-numpy on 32-bit systems, for which no wheel of numpy exists)"
    )


def _chunks(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
