"""This machine as the board."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Self

from edgekd.board.connection.pump import Exit
from edgekd.board.connection.session import Session, board_home
from edgekd.errors import BoardError

TERMINATE_WAIT_S = 2.0


class LocalProcess:
    """A subprocess in a process group of its own, so that all that it starts can be ended with it."""

    def __init__(self, command: Sequence[str]) -> None:
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as error:
            raise BoardError(f"local: '{command[0]}' cannot be started: {error.strerror}") from error
        os.set_blocking(self._pipe(self._process.stdin).fileno(), False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # First politely: a transfer removes its temporary directory when it is terminated.
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(TERMINATE_WAIT_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                self._pipe(pipe).close()

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe

    @staticmethod
    def _read(pipe: IO[bytes], timeout_s: float) -> bytes | None:
        ready, _, _ = select.select([pipe], [], [], timeout_s)
        return os.read(pipe.fileno(), 65536) if ready else None

    def read_stdout(self, timeout_s: float) -> bytes | None:
        """The next bytes; b"" at the end; None where none came in time."""
        return self._read(self._pipe(self._process.stdout), timeout_s)

    def read_stderr(self, timeout_s: float) -> bytes | None:
        """The same of standard error."""
        return self._read(self._pipe(self._process.stderr), timeout_s)

    def write_stdin(self, data: memoryview, timeout_s: float) -> int:
        """How many bytes were taken. BrokenPipeError: it reads no more."""
        stdin = self._pipe(self._process.stdin)
        _, ready, _ = select.select([], [stdin], [], timeout_s)
        try:
            return os.write(stdin.fileno(), data[: 2**20]) if ready else 0
        except BlockingIOError:
            return 0

    def close_stdin(self) -> None:
        """Let the command read the end of its input."""
        self._pipe(self._process.stdin).close()

    def wait(self, stderr: bytes, timeout_s: float) -> Exit:
        """Its end, once its output has ended."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise BoardError("local: a command closed its output but did not end; it was stopped") from error
        text = stderr.decode("utf-8", errors="replace")
        return Exit(code, None, text) if code >= 0 else Exit(None, -code, text)


class LocalSession(Session):
    """Commands run as subprocesses of this one."""

    name = "local"
    is_local = True

    def __init__(self) -> None:
        self.home = board_home(self)
        # The Python that runs edgekd is a good one for the agent: it exists, is new enough, and may hold the runtime.
        self.preferred_python: str | None = sys.executable or None

    def start(self, command: Sequence[str]) -> LocalProcess:
        """Start `command` as a subprocess."""
        return LocalProcess(command)

    def close(self) -> None:
        """Nothing is held between commands."""
