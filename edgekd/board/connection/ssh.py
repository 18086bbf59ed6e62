"""A board over SSH."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import shlex
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import paramiko

from edgekd.board.connection.address import Address
from edgekd.board.connection.pump import Exit, LinkLostError
from edgekd.board.connection.session import Session, board_home
from edgekd.board.connection.ssh_connect import CONNECT_TIMEOUT_S, connect
from edgekd.core.board_output import printable
from edgekd.errors import BoardError

# paramiko logs errors, with tracebacks, that are raised as well.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

OPEN_TIMEOUT_S = 12.0
KILL_TIMEOUT_S = 5.0
PULSE_S = 3.0
SILENCE_LIMIT_S = 12.0
BANNER_LIMIT_BYTES = 2**20
_AWKWARD = re.compile(r"['\\!\x00-\x1f\x7f]")

# Runs "$@" and tells how it ended. $0 is a token that no other output can contain: what a start-up file prints before
# it is dropped, and an end without it is a lost link and not the command's exit code. The script is one line without
# single quotes, backslashes or exclamation marks, so that csh and fish pass it on unharmed.
_WRAPPER = (
    'LC_ALL=C; export LC_ALL; echo; echo "$0"; echo >&2; echo "$0 $$" >&2; '
    '"$@"; code=$?; echo >&2; echo "$0 exit $code" >&2; exit $code'
)
# A session's commands share one process group, led by the login shell that sshd started.
_KILL = (
    'set -- "$1" $(cat "/proc/$1/stat"); [ -n "$6" ] || exit 0; '
    'kill -TERM -- "-$6"; for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" 2>/dev/null || exit 0; sleep 0.1; done; '
    'kill -KILL -- "-$6"'
)


def quote(words: Sequence[str]) -> str:
    """Words for a login shell, be it POSIX, csh or fish: the one place where quoting is done.

    Plain words go in single quotes, which all shells read alike. Words with characters that some shell reads within
    them travel in octal, which `printf` there turns back.
    """
    if not any(_AWKWARD.search(word) for word in words):
        return " ".join(f"'{word}'" for word in words)
    encoded = _AWKWARD.sub(lambda found: f"\\0{ord(found.group()):03o}", shlex.join(words))
    return f"""'sh' '-c' 'eval "exec $(printf %b "$1")"' 'sh' '{encoded}'"""


def command_line(token: str, command: Sequence[str]) -> str:
    """The text that sshd hands to the login shell."""
    return "exec " + quote(("sh", "-c", _WRAPPER, token, *command))


class Pulse(threading.Thread):
    """Asks the server now and then to answer, and closes the connection once it has not for SILENCE_LIMIT_S.

    A frozen server keeps its TCP connection: no timeout of the kernel ever tells. Bytes that move count as an answer,
    since on a slow link the question waits behind them.
    """

    def __init__(self, transport: Any) -> None:
        super().__init__(daemon=True)
        self._transport = transport
        self._heard = time.monotonic()
        self._asked = False
        self.stopped_answering = False

    def beat(self) -> None:
        """Bytes moved."""
        self._heard = time.monotonic()

    def run(self) -> None:
        """Watch until the connection ends."""
        while self._transport.is_active():
            if not self._asked:
                self._asked = True
                threading.Thread(target=self._ask, daemon=True).start()
            time.sleep(PULSE_S)
            if time.monotonic() - self._heard > SILENCE_LIMIT_S:
                self.stopped_answering = True
                self._transport.close()

    def _ask(self) -> None:
        # paramiko waits for the answer without a timeout, hence the thread.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._transport.global_request("keepalive@openssh.com", wait=True)
            self.beat()
        self._asked = False


class SshProcess:
    """A command on the far side of a channel."""

    def __init__(self, name: str, transport: Any, pulse: Pulse, command: Sequence[str]) -> None:
        self._name = name
        self._transport = transport
        self._pulse = pulse
        self._token = f"edgekd-{secrets.token_hex(8)}"
        self._begun = False
        self._ended = False
        self._head = bytearray()
        self._stderr_head = b""
        self._pid: int | None = None
        self._channel = self._open(command_line(self._token, command))

    def _open(self, line: str) -> Any:
        try:
            channel = self._transport.open_session(timeout=OPEN_TIMEOUT_S)
            # paramiko waits for the answer to exec without a timeout: closing the channel is what ends that wait.
            watchdog = threading.Timer(OPEN_TIMEOUT_S, channel.close)
            watchdog.daemon = True
            watchdog.start()
            try:
                channel.exec_command(line)
            finally:
                watchdog.cancel()
        except (paramiko.SSHException, OSError, EOFError) as error:
            problem = f"{self._name}: no command can be started there"
            said = printable(str(error)) or "the connection was lost"
            if isinstance(error, paramiko.ChannelException) and self._transport.is_active():
                raise BoardError(
                    f"{problem}: the server opens no further session on this connection ({said}). edgekd needs three "
                    "at once: raise MaxSessions in its /etc/ssh/sshd_config (10 by default)"
                ) from error
            raise LinkLostError(f"{problem}: {said}. The server may be frozen or the link down; try again") from error
        return channel

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._ended and self._transport.is_active():
            self._kill()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()

    def _kill(self) -> None:
        """End the command and all that it started. Closing the channel alone would leave it running."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            deadline = time.monotonic() + 1.0
            while self._pid is None and time.monotonic() < deadline:
                time.sleep(0.02)
            if self._pid is None:
                return
            channel = self._transport.open_session(timeout=KILL_TIMEOUT_S)
            channel.settimeout(KILL_TIMEOUT_S)
            watchdog = threading.Timer(KILL_TIMEOUT_S, channel.close)
            watchdog.start()
            channel.exec_command("exec " + quote(("sh", "-c", _KILL, "edgekd", str(self._pid))))
            channel.status_event.wait(KILL_TIMEOUT_S)
            watchdog.cancel()
            channel.close()

    def read_stdout(self, timeout_s: float) -> bytes | None:
        """The next bytes after the wrapper's mark; b"" at the end; None where none came in time."""
        chunk = self._receive(self._channel.recv, timeout_s)
        if chunk is None or self._begun or chunk == b"":
            return chunk
        self._head += chunk
        mark = b"\n" + self._token.encode() + b"\n"
        found = self._head.find(mark)
        if found < 0:
            if len(self._head) > BANNER_LIMIT_BYTES:
                raise BoardError(f"{self._name}: the login's start-up files print more than {BANNER_LIMIT_BYTES} bytes")
            return None
        self._begun = True
        return bytes(self._head[found + len(mark) :]) or None

    def read_stderr(self, timeout_s: float) -> bytes | None:
        """The same of standard error, with the wrapper's marks, which `wait` reads and takes away."""
        chunk = self._receive(self._channel.recv_stderr, timeout_s)
        if chunk and self._pid is None:
            self._stderr_head = self._stderr_head[-4096:] + chunk
            found = re.search(rb"\n%s (\d+)\n" % self._token.encode(), self._stderr_head)
            self._pid = int(found.group(1)) if found else None
        return chunk

    def _receive(self, receive: Any, timeout_s: float) -> bytes | None:
        self._channel.settimeout(timeout_s)
        try:
            chunk: bytes = receive(65536)
        except TimeoutError:
            return None
        except OSError:
            return b""
        self._pulse.beat()
        return chunk

    def write_stdin(self, data: memoryview, timeout_s: float) -> int:
        """How many bytes were taken. `data` is a memoryview: slicing bytes would copy what is left each time."""
        try:
            taken: int = self._channel.send(data)
        except TimeoutError:
            return 0
        except OSError as error:
            raise BrokenPipeError from error
        self._pulse.beat()
        return taken

    def close_stdin(self) -> None:
        """Let the command read the end of its input."""
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()

    def wait(self, stderr: bytes, timeout_s: float) -> Exit:
        """Its end, from the wrapper's last words; without them the link was lost or the wrapper was killed."""
        self._channel.status_event.wait(timeout_s)
        text = stderr.decode("utf-8", errors="replace")
        _, _, said = text.rpartition(f"\n{self._token} {self._pid}\n")
        body, mark, code = said.rpartition(f"\n{self._token} exit ")
        if mark and code.strip().isdigit():
            self._ended = True
            number = int(code)
            # A shell tells a signal as 128 + its number.
            return Exit(None, number - 128, body) if 129 <= number <= 192 else Exit(number, None, body)
        status = self._channel.exit_status if self._channel.status_event.is_set() else -1
        self._ended = status >= 0
        if status > 0 and not self._begun:
            raise BoardError(
                f"{self._name}: the login shell there ended with code {status} before it ran anything: "
                f"{printable(text.strip()[-400:] or self._head.decode('utf-8', 'replace')[-400:], 400)}. "
                "The login needs a shell and `sh`"
            )
        time.sleep(0.2)  # The transport's own thread may still be learning that the connection is gone.
        if self._pulse.stopped_answering:
            raise LinkLostError(
                f"{self._name}: the server stopped answering for {SILENCE_LIMIT_S:.0f} s (frozen, or the link is down) "
                "and the connection was closed. Check the board, then run the same command again"
            )
        if self._transport.is_active():
            raise BoardError(f"{self._name}: the command was killed on the board, with the shell that ran it")
        raise LinkLostError(
            f"{self._name}: the connection was lost while a command ran. What it did not finish was not put in place; "
            "check the link and the board's power, then run the same command again"
        )


class SshSession(Session):
    """Commands run over channels of one SSH connection."""

    def __init__(self, name: str, address: Address, *, identity: Path | None, accept_new_host_key: bool) -> None:
        self.name = name
        self._address = address
        self._identity = identity
        self._accept_new_host_key = accept_new_host_key
        self._connect(CONNECT_TIMEOUT_S)
        try:
            self.home = board_home(self)
        except BaseException:
            self.close()
            raise

    def _connect(self, timeout_s: float) -> None:
        self._connection = connect(
            self.name,
            self._address,
            identity=self._identity,
            accept_new_host_key=self._accept_new_host_key,
            timeout_s=timeout_s,
        )
        self._pulse = Pulse(self._connection.transport)
        self._pulse.start()

    def reconnect(self, timeout_s: float) -> None:
        """Close what is left of the connection and log in again."""
        self.close()
        self._connect(min(timeout_s, CONNECT_TIMEOUT_S))

    def start(self, command: Sequence[str]) -> SshProcess:
        """Start `command` through the login shell, wrapped so that its end can be told."""
        return SshProcess(self.name, self._connection.transport, self._pulse, command)

    def close(self) -> None:
        """Close the connection; what it was reached through goes with it."""
        with contextlib.suppress(OSError, EOFError, socket.error):
            self._connection.close()
