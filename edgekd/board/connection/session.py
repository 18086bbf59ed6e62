"""The one live object: a session to a board, over which commands run and files go."""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from edgekd.board.connection.pump import BoardProcess, Collector, Exit, LineSplitter, pump
from edgekd.core.board_output import printable
from edgekd.errors import BoardError, ConfigurationError

SYSFS_VARIABLE = "EDGEKD_SYSFS"
DEFAULT_TIMEOUT_S = 60.0
OUTPUT_LIMIT_BYTES = 16 * 2**20
LINE_LIMIT_BYTES = 2**20
STREAM_LIMIT_BYTES = 256 * 2**20
# onnxruntime (1.31 and later) writes an identity and a data base of telemetry into the user's cache directory as soon
# as it is imported: what edgekd starts leaves no such thing on a board.
NO_CACHE = "XDG_CACHE_HOME=/dev/null"


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


class Session(ABC):
    """A board that commands run on and files go to. `home` holds everything that edgekd puts there."""

    name: str
    home: str
    is_local: bool = False

    @property
    def sysfs(self) -> str:
        """Where the board's /sys is to be read: EDGEKD_SYSFS puts another tree in its place."""
        return os.environ.get(SYSFS_VARIABLE) or "/sys"

    @abstractmethod
    def start(self, command: Sequence[str]) -> BoardProcess:
        """Start `command` (a program and its arguments, never a shell line) and return it running."""

    def reconnect(self, timeout_s: float) -> None:  # noqa: B027 - a session without a connection has none to lose
        """Make the connection anew after it was lost, within `timeout_s`.

        Raises:
            LinkLostError: it cannot be made now; it may be later.
            BoardError: it cannot be made at all (the login is refused, the host key has changed).
        """

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
        stdin: bytes | Iterable[bytes] | None = None,
        on_line: Callable[[str], None],
        timeout_s: float,
        idle_timeout_s: float,
    ) -> CommandResult:
        """Run a command and hand over each line of its output as it comes.

        Standard input stays open until the command ends, or until an iterator given as `stdin` does: to the command,
        its closing means that this side is gone.
        `idle_timeout_s` bounds the silence between lines. Nothing is raised for a non-zero exit code.
        """
        lines = LineSplitter(on_line, LINE_LIMIT_BYTES, STREAM_LIMIT_BYTES)
        hold = stdin is None or isinstance(stdin, bytes)
        chunks = [stdin] if isinstance(stdin, bytes) else stdin or []
        end = self._exchange(
            command, chunks, lines, hold_stdin=hold, timeout_s=timeout_s, idle_timeout_s=idle_timeout_s
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
