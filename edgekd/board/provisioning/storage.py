"""What edgekd has put on a board: listed, and removed without touching anything else."""

from __future__ import annotations

import re

from edgekd.board.connection.session import Session
from edgekd.board.connection.transfer import LISTING_NAME
from edgekd.board.lock import BoardLock, lock_holder
from edgekd.board.measuring.agent_archive import agent_sha256
from edgekd.core.board_output import parse_integer, printable
from edgekd.errors import BoardError
from edgekd.records.board import BoardStorage, Stored

CLEAN_TIMEOUT_S = 600.0
FOLDERS = ("bundles", "agent", "runs", "engines")
_OWN_IN_BUNDLES = re.compile(
    r"[0-9a-f]{16}|current-(tflite|onnx)|\.next-(tflite|onnx)|\.partial-[0-9a-f]{64}|\.incoming-[0-9]+-[0-9a-f]{8}"
)
# Kibibytes and name of everything in the three folders, and the bundles in use.
_LIST = (
    'cd -- "$1" 2>/dev/null || exit 0; du -sk bundles/* agent/* runs/* engines/*.plan 2>/dev/null; echo in-use; '
    "for l in bundles/current-*; do readlink $l; done; exit 0"
)
# Removes what the listings name, then directories that are empty.
_REMOVE_LISTED = (
    'cd -- "$1" 2>/dev/null || exit 0; find runs agent -name "$2" -type f 2>/dev/null | while read -r list; do '
    'dir=${list%/*}; while read -r sum name; do case /$name/ in */../*|//*) continue;; esac; rm -f -- "$dir/$name"; '
    'done <"$list"; rm -f -- "$list"; rm -rf -- "$dir"/.incoming-*; done; '
    "find runs agent -depth -type d -exec rmdir {} + 2>/dev/null; ls -A bundles 2>/dev/null; exit 0"
)
_REMOVE_BUNDLES = 'cd -- "$1/bundles" && shift && rm -rf -- "$@"'
_REMOVE_ENGINES = (
    'cd -- "$1/engines" 2>/dev/null || exit 0; rm -rf -- .run-[0-9]*; '
    "h=[0-9a-f]; h=$h$h$h$h; rm -f -- $h$h$h$h.plan $h$h$h$h.json; exit 0"
)
_REMOVE_EMPTY = (
    'cd -- "$1" 2>/dev/null || exit 0; rmdir bundles engines 2>/dev/null; rm -f .write-check-*; '
    'cd / && rmdir -- "$1" 2>/dev/null; [ -d "$1" ] && ls -A -- "$1"; exit 0'
)


def board_storage(session: Session) -> BoardStorage:
    """What edgekd has put there: bundles, runs, agents; and who holds the lock.

    Raises:
        BoardError: the board does not answer.
    """
    text = session.shell(_LIST, session.home, timeout_s=CLEAN_TIMEOUT_S).stdout
    listing, _, in_use = text.partition("in-use\n")
    used = {*in_use.split(), f"agent-{agent_sha256()[:16]}.pyz"}
    stored = []
    for line in listing.splitlines():
        kib, _, path = line.partition("\t")
        folder, _, name = path.partition("/")
        size = parse_integer(kib)
        if folder in FOLDERS and size is not None and not name.startswith("current-"):
            stored.append(_stored(folder, name, size * 1024, name in used))
    holder = lock_holder(session)
    return BoardStorage(
        board=session.name,
        home=session.home,
        size_bytes=sum(entry.size_bytes for entry in stored),
        stored=tuple(stored),
        locked_by=str(holder) if holder else None,
    )


def _stored(folder: str, name: str, size_bytes: int, in_use: bool) -> Stored:
    shown = printable(name, 100)
    if folder == "bundles":
        return Stored(kind="bundle", name=shown, size_bytes=size_bytes, in_use=in_use)
    if folder == "engines":
        return Stored(kind="engine", name=shown, size_bytes=size_bytes)
    if folder == "agent":
        return Stored(kind="agent", name=shown, size_bytes=size_bytes, in_use=in_use)
    return Stored(kind="run", name=shown, size_bytes=size_bytes)


def clean(session: Session) -> tuple[BoardStorage, list[str]]:
    """Remove everything that edgekd put there; returns what there was, and the names of others' files that remain.

    Only what edgekd's own listings and names say is removed: files that somebody else put into its directory stay.

    Raises:
        BoardError: somebody holds the board's lock, or something there cannot be removed.
    """
    before = board_storage(session)
    with BoardLock(session, "edgekd board clean"):
        names = session.shell(_REMOVE_LISTED, session.home, LISTING_NAME, timeout_s=CLEAN_TIMEOUT_S).stdout.splitlines()
        session.shell(_REMOVE_ENGINES, session.home, timeout_s=CLEAN_TIMEOUT_S)
        bundles = [name for name in names if _OWN_IN_BUNDLES.fullmatch(name)]
        if bundles:
            session.shell(_REMOVE_BUNDLES, session.home, *bundles, timeout_s=CLEAN_TIMEOUT_S)
    left = session.shell(_REMOVE_EMPTY, session.home).stdout.splitlines()
    if before.stored and (still := [entry for entry in board_storage(session).stored if entry.kind != "run"]):
        names = [entry.name for entry in still if entry.kind == "bundle" and _OWN_IN_BUNDLES.fullmatch(entry.name)]
        if names:
            raise BoardError(f"{session.name}: could not be removed: {', '.join(names)} in {session.home}/bundles")
    return before, [printable(name, 100) for name in left]
