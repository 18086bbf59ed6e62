"""The one live object: a session to a board, over which commands run and files go."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shlex
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from edgekd.board.pump import BoardProcess, Collector, Exit, LineSplitter, pump
from edgekd.board.transfer import Sent, put_files
from edgekd.core.board_output import printable
from edgekd.errors import BoardError, ConfigurationError

DEFAULT_TIMEOUT_S = 60.0
OUTPUT_LIMIT_BYTES = 16 * 2**20
LINE_LIMIT_BYTES = 2**20
STREAM_LIMIT_BYTES = 256 * 2**20

_HOST = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_])?$")
_IPV6 = re.compile(r"^[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?$")
_USER = re.compile(r"^[A-Za-z_][A-Za-z0-9._-]*\$?$")


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command on a board ended. `signal` is the number of the signal that killed it, or None."""

    stdout: str
    stderr: str
    exit_code: int | None
    signal: int | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it ended by itself, with code 0."""
        return self.exit_code == 0 and self.signal is None


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed `[USER@]HOST[:PORT]`; None where the part was not given."""

    host: str
    user: str | None = None
    port: int | None = None


class Session(ABC):
    """A board that commands run on and files go to. `home` holds everything that edgekd puts there."""

    name: str
    home: str
    is_local: bool = False

    @abstractmethod
    def start(self, command: Sequence[str]) -> BoardProcess:
        """Start `command` (a program and its arguments, never a shell line) and return it running."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back. Closing twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(
        self,
        command: Sequence[str],
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        stdin: bytes | None = None,
        check: bool = True,
    ) -> CommandResult:
        """Run a command to its end; with `check`, any end but exit code 0 is a BoardError."""
        collected = Collector(OUTPUT_LIMIT_BYTES)
        chunks = [stdin] if stdin else []
        end = self._exchange(command, chunks, collected, hold_stdin=False, timeout_s=timeout_s, idle_timeout_s=None)
        result = _result(end, collected.text())
        if check and not result.succeeded:
            raise self.failure(command, result)
        return result

    def shell(
        self, script: str, *arguments: str, timeout_s: float = DEFAULT_TIMEOUT_S, check: bool = True
    ) -> CommandResult:
        """Run a POSIX shell script with positional arguments `$1`, `$2` and so on."""
        return self.run(["sh", "-c", script, "edgekd", *arguments], timeout_s=timeout_s, check=check)

    def stream(
        self,
        command: Sequence[str],
        *,
        stdin: bytes | None = None,
        on_line: Callable[[str], None],
        timeout_s: float,
        idle_timeout_s: float,
    ) -> CommandResult:
        """Run a command and hand over each line of its output as it comes.

        Standard input stays open until the command ends: to the command, its closing means that this side is gone.
        `idle_timeout_s` bounds the silence between lines. Nothing is raised for a non-zero exit code.
        """
        lines = LineSplitter(on_line, LINE_LIMIT_BYTES, STREAM_LIMIT_BYTES)
        chunks = [stdin] if stdin else []
        end = self._exchange(
            command, chunks, lines, hold_stdin=True, timeout_s=timeout_s, idle_timeout_s=idle_timeout_s
        )
        lines.finish()
        return _result(end, "")

    def send(
        self, command: Sequence[str], chunks: Iterable[bytes], *, timeout_s: float, idle_timeout_s: float
    ) -> CommandResult:
        """Run a command that reads `chunks` from its standard input. Nothing is raised for a non-zero exit code."""
        collected = Collector(OUTPUT_LIMIT_BYTES)
        end = self._exchange(
            command, chunks, collected, hold_stdin=False, timeout_s=timeout_s, idle_timeout_s=idle_timeout_s
        )
        return _result(end, collected.text())

    def put(self, local: Path, remote: str) -> Sent:
        """Put one file at the absolute path `remote`, atomically; skipped where the same bytes are there."""
        path = PurePosixPath(remote)
        return put_files(self, str(path.parent), {path.name: local})

    def get(self, remote: str, local: Path, *, timeout_s: float = 600.0) -> None:
        """Fetch one file to `local`, atomically; what came is checked against the hash that the board computes."""
        digest = hashlib.sha256()
        partial = local.with_name(f".{local.name}.{secrets.token_hex(4)}.partial")
        command = ["cat", "--", remote]
        try:
            with partial.open("wb") as file:

                def keep(chunk: bytes) -> None:
                    digest.update(chunk)
                    file.write(chunk)

                end = self._exchange(command, [], keep, hold_stdin=False, timeout_s=timeout_s, idle_timeout_s=30.0)
            result = _result(end, "")
            if not result.succeeded:
                raise self.failure(command, result)
            there = self.run(["sha256sum", "--", remote], timeout_s=timeout_s).stdout[:64]
            if there != digest.hexdigest():
                raise BoardError(f"{self.name}: {remote} changed or was damaged on its way here; fetch it again")
            partial.replace(local)
        except OSError as error:
            raise ConfigurationError(f"{local} cannot be written: {error.strerror or error}") from error
        finally:
            partial.unlink(missing_ok=True)

    def failure(self, command: Sequence[str], result: CommandResult) -> BoardError:
        """The error that tells how `command` failed, with the end of what it said."""
        said = printable(result.stderr.strip()[-600:] or result.stdout.strip()[-600:], 600)
        how = (
            f"was killed by {signal_name(result.signal)}"
            if result.signal
            else f"failed with exit code {result.exit_code}"
        )
        return BoardError(f"{self.name}: the command `{shown(command)}` {how}" + (f": {said}" if said else ""))

    def _exchange(
        self,
        command: Sequence[str],
        chunks: Iterable[bytes],
        on_stdout: Callable[[bytes], None],
        *,
        hold_stdin: bool,
        timeout_s: float,
        idle_timeout_s: float | None,
    ) -> Exit:
        what = f"{self.name}: the command `{shown(command)}`"
        with self.start(command) as process:
            return pump(
                process,
                chunks,
                on_stdout,
                hold_stdin=hold_stdin,
                timeout_s=timeout_s,
                idle_timeout_s=idle_timeout_s,
                what=what,
            )


def shown(command: Sequence[str]) -> str:
    """A command for a message: scripts and long arguments cut short, nothing in it that a terminal would act on."""
    words = [word if len(word) <= 60 and "\n" not in word else word.split("\n", 1)[0][:40] + "…" for word in command]
    return printable(shlex.join(words), 200)


def signal_name(number: int) -> str:
    """`SIGILL` for 4; a number without a name as it is."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _result(end: Exit, stdout: str) -> CommandResult:
    return CommandResult(stdout=stdout, stderr=end.stderr, exit_code=end.exit_code, signal=end.signal)


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
        valid = bool(closed) and bool(_IPV6.match(host)) and ":" in host and (after == "" or after.startswith(":"))
        port_text = after[1:] if after else None
    elif rest.count(":") > 1:
        host, valid = rest, bool(_IPV6.match(rest))
    else:
        host, colon, after = rest.partition(":")
        valid = bool(_HOST.match(host))
        port_text = after if colon else None
    if port_text is not None:
        valid = valid and port_text.isascii() and port_text.isdigit() and 1 <= int(port_text[:6]) <= 65535
    if at and not _USER.match(user):
        valid = False
    if not valid:
        raise ConfigurationError(
            f"board '{printable(board, 100)}' is not understood: give `local` or [USER@]HOST[:PORT], for example "
            "pi@raspberrypi.local or pi@[fe80::1]:2222 (port 1 to 65535)"
        )
    return Address(host=host, user=user if at else None, port=int(port_text) if port_text else None)


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
        from edgekd.board.local import LocalSession

        return LocalSession()
    if identity is not None and not identity.is_file():
        raise ConfigurationError(f"--identity {identity}: there is no such file")
    from edgekd.board.ssh import SshSession

    return SshSession(board, address, identity=identity, accept_new_host_key=accept_new_host_key)


def board_home(session: Session) -> str:
    """Where edgekd keeps its files on that board: EDGEKD_BOARD_HOME, else `.edgekd` in the login's home.

    Raises:
        BoardError: the board tells no usable home directory.
    """
    given = os.environ.get("EDGEKD_BOARD_HOME")
    home = given or session.shell('printf "%s/.edgekd" "$HOME"').stdout
    if not home.startswith("/") or home == "/.edgekd" or "\n" in home or printable(home, 4000) != home:
        raise BoardError(
            f"{session.name}: no usable home directory there ('{printable(home, 100)}'): set EDGEKD_BOARD_HOME to an "
            "absolute path that the login may write to"
        )
    return home.rstrip("/")
