"""Puts files on a board: one exchange to ask what is there, one tar stream for all that is not.

A transfer is atomic a file: everything is unpacked into a temporary directory beside its destination, checked there
against sha256 sums that travel with it, and only then renamed. Whatever interrupts it, the temporary directory goes:
at once where the board still runs our script, at the next transfer where it does not.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekd.board.connection.session import CommandResult, Session
from edgekd.core.board_output import parse_df, printable
from edgekd.errors import BoardError, ConfigurationError

CHUNK_BYTES = 2**18
SUMS_NAME = "SHA256SUMS"
FEW_FILES = 16
# In every directory that files were put into: their sums and names, so that cleaning knows what is ours.
LISTING_NAME = ".edgekd-files"
# Checking sums and importing a runtime is silent work, slow on an SD card; a frozen server is noticed before this.
IDLE_TIMEOUT_S = 180.0
TRANSFER_TIMEOUT_S = 3600.0
# Spaces and letters of any language may be; what a shell, tar or sha256sum reads in a way of its own may not.
_SAFE_PART = re.compile(r"(?![-. ])[^\x00-\x1f\x7f-\x9f/\\]{1,200}(?<! )")

# One line, and neither single quotes, backslashes nor exclamation marks: it has to pass through login shells that are
# not POSIX ones. $1: destination directory, $2: a token. The name of the temporary directory holds the process that
# fills it, so that one whose process is gone is known to be stale.
PREPARE = (
    'root=$1; mkdir -p -- "$root" || exit 91; '
    'for old in "$root"/.incoming-*; do owner=${old##*.incoming-}; owner=${owner%%-*}; '
    '[ -e "$old" ] && [ -n "$owner" ] && { kill -0 "$owner" 2>/dev/null || rm -rf -- "$old"; }; done; '
    'new="$root/.incoming-$$-$2"; clean() { rm -rf -- "$new"; }; '
    "trap clean EXIT; trap 'exit 129' HUP INT TERM PIPE; "
).replace("'", '"')
# $3: how many files. What was unpacked is hashed against the sums in the archive: a few files by openssl, which uses
# what the CPU has for it and takes a third of the time that sha256sum does, many by one process of sha256sum; that has
# the last word where openssl is missing or disagrees. What follows the archive's end is read too: a sender that is cut
# off would take it for a failure.
RECEIVE = (
    PREPARE + 'mkdir -m 700 -- "$new" || exit 91; cd -- "$new" || exit 91; '
    "{ tar -xf - && cat >/dev/null; } || exit 92; same=; "
    f'if [ "$3" -le {FEW_FILES} ] && command -v openssl >/dev/null; then same=yes; while read -r sum name; do '
    'seen=$(openssl dgst -sha256 -r <"$name" 2>/dev/null); [ "${seen%% *}" = "$sum" ] || same=; '
    f"done <{SUMS_NAME}; fi; "
    f'[ -n "$same" ] || sha256sum -c {SUMS_NAME} >/dev/null || exit 93; '
)
# One `mv` for all files of the directory itself: a process for each of hundreds would cost seconds on a slow board.
_PUBLISH_FILES = (
    'while read -r sum name; do case $name in */*) mkdir -p -- "$root/${name%/*}" && '
    f'mv -f -- "$name" "$root/$name" || exit 91;; esac; done <{SUMS_NAME}; '
    f'cat {SUMS_NAME} >>"$root/{LISTING_NAME}" || exit 91; rm -f {SUMS_NAME}; '
    'set --; for file in *; do [ -f "$file" ] && set -- "$@" "$file"; done; '
    '[ $# -eq 0 ] || mv -f -- "$@" "$root"/ || exit 91; exit 0'
)
_HASHES = 'echo edgekd-hashes; cd -- "$1" 2>/dev/null || exit 0; shift; sha256sum -- "$@" 2>/dev/null; exit 0'

_HASHES_MARK = "edgekd-hashes"
_FREE = 'd=$1; while [ -n "$d" ] && [ ! -d "$d" ]; do d=${d%/*}; done; df -Pk -- "${d:-/}"'

_STEPS = {
    91: "the directory cannot be written",
    92: "the files could not be unpacked",
    93: "the files arrived damaged",
}


@dataclass(frozen=True, slots=True)
class Sent:
    """What a transfer did: names sent, names that were there already, and bytes of the files sent."""

    sent: tuple[str, ...]
    skipped: tuple[str, ...]
    sent_bytes: int


def sha256_file(path: Path) -> str:
    """The sha256 of a file here, in hex.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error


def tar_stream(files: Mapping[str, Path]) -> Iterator[bytes]:
    """A tar archive of `files` (name → path), read and hashed as it goes, with the sums as its last member.

    Raises:
        BoardError: a file changed size while it was read.
    """
    listing = bytearray()
    for name, path in files.items():
        size = path.stat().st_size
        yield _tar_header(name, size, 0o644)
        left = size
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(min(CHUNK_BYTES, left)):
                left -= len(chunk)
                digest.update(chunk)
                yield chunk
        if left:
            raise BoardError(f"{path} shrank while it was being sent: nothing was put in place; try again")
        yield _padding(size)
        listing += f"{digest.hexdigest()}  {name}\n".encode()
    yield _tar_header(SUMS_NAME, len(listing), 0o600) + bytes(listing) + _padding(len(listing))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _tar_header(name: str, size: int, mode: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def check_name(name: str) -> None:
    """Refuse a name that is not a plain relative path of a few harmless characters.

    Raises:
        ConfigurationError: naming it.
    """
    if name == SUMS_NAME or not all(_SAFE_PART.fullmatch(part) for part in name.split("/")):
        raise ConfigurationError(
            f"'{printable(name, 100)}' cannot be the name of a file on a board: it needs a relative path without "
            "control characters and backslashes, no part of which begins with a dot, a dash or a space"
        )


def put_files(session: Session, root: str, files: Mapping[str, Path]) -> Sent:
    """Put files (name relative to `root` → local path) into the absolute directory `root` of the board.

    What is there with the same hash is not sent. All the rest goes in one stream and is renamed into place after its
    hashes were checked on the board.

    Raises:
        ConfigurationError: a name that is not a plain relative path, or a local file that cannot be read.
        BoardError: the board is full, read-only, damaged the data, or the link broke.
    """
    for name in files:
        check_name(name)
    there, free_bytes = look(session, root, tuple(files))
    # Only what is there has to be hashed beforehand; the rest is hashed while it is sent.
    missing = {name: path for name, path in files.items() if name not in there or there[name] != sha256_file(path)}
    size_bytes = sum(_size(path) for path in missing.values())
    if missing:
        check_room(session, root, size_bytes, free_bytes)
        command = ["sh", "-c", RECEIVE + _PUBLISH_FILES, "edgekd", root, secrets.token_hex(4), str(len(missing))]
        result = session.send(command, tar_stream(missing), timeout_s=TRANSFER_TIMEOUT_S, idle_timeout_s=IDLE_TIMEOUT_S)
        if not result.succeeded:
            raise transfer_failure(session, root, result)
    return Sent(
        sent=tuple(missing),
        skipped=tuple(name for name in files if name not in missing),
        sent_bytes=size_bytes,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error


def look(session: Session, root: str, names: tuple[str, ...]) -> tuple[dict[str, str], int | None]:
    """The sha256 of those of `names` that exist under `root` on the board, and the bytes free there."""
    said = session.shell(f"{_FREE}; {_HASHES}", root, *names, timeout_s=300.0).stdout
    disk, _, listing = said.partition(f"{_HASHES_MARK}\n")
    hashes = {}
    for line in listing.splitlines():
        digest, separator, name = line.partition("  ")
        if separator and name in names and re.fullmatch(r"[0-9a-f]{64}", digest):
            hashes[name] = digest
    return hashes, parse_df(disk)


def require_room(session: Session, root: str, size_bytes: int) -> None:
    """Ask whether `size_bytes` fit on the disk that `root` is on, before anything is sent.

    Raises:
        BoardError: they do not. A board that cannot tell passes.
    """
    check_room(session, root, size_bytes, parse_df(session.shell(_FREE, root, check=False).stdout))


def check_room(session: Session, root: str, size_bytes: int, free_bytes: int | None) -> None:
    """Refuse to send more than is free; None passes."""
    if free_bytes is not None and free_bytes < size_bytes:
        raise BoardError(
            f"{session.name}: No space left on device for {root}: {size_bytes / 2**20:.1f} MiB are needed, "
            f"{free_bytes / 2**20:.1f} MiB are free. Nothing was sent. Free some, or set EDGEKD_BOARD_HOME to a "
            "directory on another disk"
        )


def transfer_failure(session: Session, root: str, result: CommandResult) -> BoardError:
    """The error that tells which step of a transfer failed, and what to do."""
    said = printable(result.stderr.strip()[-400:], 400)
    step = _STEPS.get(result.exit_code or 0, "the transfer failed")
    if result.signal:
        step = f"the transfer was killed there (signal {result.signal})"
    return BoardError(
        f"{session.name}: {step} ({root}): {said}. Nothing half-written was left. Free space or fix the permissions "
        "there, or set EDGEKD_BOARD_HOME to another directory"
    )
