"""Moves bytes between this side and a running command, with a bound on time, on silence and on size."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, Self

from edgekd.errors import BoardError

POLL_S = 0.2
STDERR_LIMIT_BYTES = 2**20
END_WAIT_S = 10.0


class LinkLostError(BoardError):
    """The connection broke, or could not be made though it may be a moment later: what was asked may be asked again."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended, and what it wrote to standard error."""

    exit_code: int | None
    signal: int | None
    stderr: str


class BoardProcess(Protocol):
    """A command that runs on a board. Leaving its `with` block early kills it and all that it started there."""

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(self, *error: object) -> None:
        """Kill what still runs, release what is held."""

    def read_stdout(self, timeout_s: float) -> bytes | None:
        """The next bytes; b"" at the end; None where none came in time."""

    def read_stderr(self, timeout_s: float) -> bytes | None:
        """The same of standard error."""

    def write_stdin(self, data: memoryview, timeout_s: float) -> int:
        """How many bytes were taken; 0 where none could be in time. BrokenPipeError: it reads no more."""

    def close_stdin(self) -> None:
        """Let the command read the end of its input."""

    def wait(self, stderr: bytes, timeout_s: float) -> Exit:
        """Its end. `stderr`: all that it wrote there. BoardError where the end cannot be learnt."""


class Collector:
    """Keeps output up to a limit; more is refused."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._data = bytearray()

    def __call__(self, chunk: bytes) -> None:
        """Keep one more chunk."""
        self._data += chunk
        if len(self._data) > self._limit:
            raise BoardError(f"the board sent more than {self._limit} bytes as a command's output: refused")

    def text(self) -> str:
        """All of it; bytes that are not UTF-8 are replaced."""
        return self._data.decode("utf-8", errors="replace")


class LineSplitter:
    """Hands over whole lines, each and all together bounded in size."""

    def __init__(self, on_line: Callable[[str], None], line_limit: int, total_limit: int) -> None:
        self._on_line = on_line
        self._line_limit = line_limit
        self._left = total_limit
        self._rest = bytearray()

    def __call__(self, chunk: bytes) -> None:
        """Take one chunk; complete lines go out."""
        self._left -= len(chunk)
        self._rest += chunk
        *lines, rest = self._rest.split(b"\n")
        if self._left < 0 or len(rest) > self._line_limit or any(len(line) > self._line_limit for line in lines):
            raise BoardError(f"the board sent a line of more than {self._line_limit} bytes, or endless output: refused")
        self._rest = rest
        for line in lines:
            self._on_line(line.decode("utf-8", errors="replace"))

    def finish(self) -> None:
        """Hand over a last line that had no end."""
        if self._rest:
            self._on_line(self._rest.decode("utf-8", errors="replace"))
            self._rest = bytearray()


class _Clock:
    """Deadlines of one exchange, shared by its threads."""

    def __init__(self, timeout_s: float, idle_timeout_s: float | None) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._last_moved = time.monotonic()

    def moved(self) -> None:
        """Bytes went one way or the other."""
        self._last_moved = time.monotonic()

    def problem(self) -> str | None:
        """What ran out, in words, or None."""
        now = time.monotonic()
        if now > self._deadline:
            return f"did not end within {self._timeout_s:.0f} s"
        if self._idle_timeout_s is not None and now - self._last_moved > self._idle_timeout_s:
            return f"gave no sign of life for {self._idle_timeout_s:.0f} s"
        return None


class _Worker(threading.Thread):
    """A thread whose error is kept for the one who waits for it."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.error: BoardError | OSError | None = None

    def run(self) -> None:
        """Do the work."""
        try:
            self._work()
        except (BoardError, OSError) as error:
            self.error = error


def pump(
    process: BoardProcess,
    chunks: Iterable[bytes],
    on_stdout: Callable[[bytes], None],
    *,
    hold_stdin: bool,
    timeout_s: float,
    idle_timeout_s: float | None,
    what: str,
) -> Exit:
    """Feed a command, hand over its output, and return its end.

    `hold_stdin` leaves its input open until it ends. `what` names it in errors.

    Raises:
        BoardError: time ran out, it fell silent, it sent too much, or the link broke.
    """
    clock = _Clock(timeout_s, idle_timeout_s)
    stop = threading.Event()
    stderr = bytearray()
    writer = _Worker(lambda: _write(process, chunks, clock, stop, hold_stdin))
    reader = _Worker(lambda: _read_stderr(process, stderr, stop))
    writer.start()
    reader.start()
    try:
        while (chunk := process.read_stdout(POLL_S)) != b"":
            if chunk:
                clock.moved()
                on_stdout(chunk)
            if problem := clock.problem():
                raise BoardError(f"{what} {problem}; it was stopped")
            if isinstance(writer.error, OSError):
                raise BoardError(f"{what} could not be fed: {writer.error}") from writer.error
            if writer.error is not None:
                raise writer.error
        reader.join(END_WAIT_S)
        return process.wait(bytes(stderr), END_WAIT_S)
    finally:
        # The threads must have let go before the process is closed under them.
        stop.set()
        writer.join(END_WAIT_S)
        reader.join(END_WAIT_S)


def _write(
    process: BoardProcess, chunks: Iterable[bytes], clock: _Clock, stop: threading.Event, hold_stdin: bool
) -> None:
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest and not stop.is_set():
                taken = process.write_stdin(rest, POLL_S)
                if taken:
                    clock.moved()
                rest = rest[taken:]
            if stop.is_set():
                return
    except BrokenPipeError:
        # It has stopped reading: its exit code and its words say why, better than this error could.
        return
    if not hold_stdin:
        process.close_stdin()


def _read_stderr(process: BoardProcess, stderr: bytearray, stop: threading.Event) -> None:
    while not stop.is_set():
        chunk = process.read_stderr(POLL_S)
        if chunk == b"":
            return
        stderr += chunk or b""
        if len(stderr) > STDERR_LIMIT_BYTES:
            del stderr[: STDERR_LIMIT_BYTES // 2]
