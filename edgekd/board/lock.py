"""One edgekd at a time on a board: a lock that lives as long as the process and the connection that hold it.

Each login has a file of its own, made with O_EXCL by a small shell script that stays there for as long as the lock is
held, in a directory that all logins of the board share (/run/lock, else /var/tmp, where only owners may remove files).
Whoever has made his file looks at the others': the oldest living one holds the board. This side sends the script a line
now and then; it rewrites the file's heartbeat without starting another process. When its input ends (we are done, died,
or the connection is gone) it removes the lock. A script that was killed, or whose board was rebooted, leaves a file
behind: one whose process is gone, or whose heart no longer beats, counts for nothing. Our own login's is removed then,
and agents that it left running are ended first; another login's is reported and left to it.
"""

from __future__ import annotations

import getpass
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from edgekd.board.connection.session import Session
from edgekd.core.board_output import parse_integer, printable
from edgekd.errors import BoardError

logger = logging.getLogger(__name__)

BEAT_S = 5.0
DEAD_AFTER_S = 12.0
ATTEMPTS = 5
HOLD_TIMEOUT_S = 7 * 86400.0
ANSWER_TIMEOUT_S = 15.0
LOCK_DIRECTORY_VARIABLE = "EDGEKD_LOCK_DIR"
"""On the board: another directory for locks than the shared ones. For tests that play several boards on one machine."""
LOCK_PATTERN = "edgekd-board.*.lock"

# $1: edgekd's directory, which is the last resort. Sets $lock to the path of this login's lock.
_WHERE = (
    f'for d in "${LOCK_DIRECTORY_VARIABLE}" /run/lock /var/tmp "$1"; do [ -n "$d" ] && [ -d "$d" ] && [ -w "$d" ] && '
    f'{{ [ -k "$d" ] || [ "$d" = "$1" ] || [ "$d" = "${LOCK_DIRECTORY_VARIABLE}" ]; }} && break; done; '
    'lock="$d/edgekd-board.$(id -u).lock"; '
)
# $1: edgekd's directory, $2: owner in words, $3: token. The file: token, process on the board, its boot, owner.
_HOLD = (
    'mkdir -p -- "$1" && cd -- "$1" && [ -w . ] || { echo unwritable; exit 91; }; ' + _WHERE + "umask 022; "
    "boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null); "
    '( set -C; echo "$3 $$ ${boot:-none} $(date +%s) $2" >"$lock" ) 2>/dev/null || '
    '{ if [ -e "$lock" ]; then echo held; else echo unwritable; fi; exit 95; }; '
    'echo "$3" >"$lock.beat"; echo locked; '
    'release() { read -r t rest <"$lock"; [ "$t" = "$1" ] && rm -f -- "$lock" "$lock.beat"; }; '
    'token=$3; trap "release $token; exit 0" HUP INT TERM PIPE; '
    'while read -r line; do echo "$token" >"$lock.beat"; done; release "$token"'
)
# Prints of each lock: whose it is (own, older or younger than our own), its token and process, whether that process
# lives in this boot, its age, seconds since its heart last beat, its path and its owner.
_LOOK = _WHERE + (
    "here=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null); "
    f'for l in "$d"/{LOCK_PATTERN}; do [ -e "$l" ] || continue; '
    'token=; read -r token pid boot since owner <"$l" || [ -n "$token" ] || continue; now=$(date +%s); alive=no; '
    '[ "$boot" = "${here:-none}" ] && '
    'tr "\\000" " " 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$token" && alive=yes; '
    'beat=$(date -r "$l.beat" +%s 2>/dev/null || echo "$since"); '
    'if [ "$l" = "$lock" ]; then whose=own; elif [ "$lock" -ot "$l" ]; then whose=younger; else whose=older; fi; '
    'echo "$whose"; echo "$token"; echo "$pid"; echo "$alive"; echo $((now - since)); echo $((now - beat)); echo "$l"; '
    'echo "$owner"; done'
)
_LOOK_LINES = 8
# $2: token of our own login's lock to break, $3: its process. Ends what it left running, then removes the file.
_BREAK = _WHERE + (
    'case $3 in ""|*[!0-9]*) ;; *) '
    'tr "\\000" " " 2>/dev/null <"/proc/$3/cmdline" | grep -qF -- "$2" && kill -KILL "$3";; esac; '
    'for p in /proc/[0-9]*; do tr "\\000" " " <"$p/cmdline" 2>/dev/null | '
    'grep -qF -e " $1/agent/agent-" -e " edgekd $1/" && { kill -TERM "${p##*/}"; left=1; }; done; '
    '[ -n "$left" ] && sleep 1; '
    'read -r token rest <"$lock"; [ "$token" = "$2" ] && rm -f -- "$lock" "$lock.beat"; exit 0'
)


class Holder:
    """Who holds a board's lock: its owner in words, how old it is, and whether it still shows life."""

    def __init__(self, lines: list[str]) -> None:
        self.whose, self.token, self.process, alive, age, silent, path, owner = (*lines, *[""] * _LOOK_LINES)[
            :_LOOK_LINES
        ]
        self.path = printable(path, 120)
        self.owner = printable(owner, 120) or "an unknown owner"
        self.alive = alive == "yes"
        self.age_s = max(0, parse_integer(age) or 0)
        self.silent_s = max(0, parse_integer(silent) or 0)

    @property
    def dead(self) -> bool:
        """Whether nobody can be behind it any more: its process is gone, or its heart has stopped."""
        if self.whose != "own" and not self.alive:
            # Where other logins' processes are hidden, only the heart tells.
            return self.silent_s > DEAD_AFTER_S
        return not self.alive or self.silent_s > DEAD_AFTER_S or _is_a_dead_process_here(self.owner)

    def __str__(self) -> str:
        """In words, for messages."""
        return f"{self.owner} for {_duration(self.age_s)}"


def lock_holder(session: Session) -> Holder | None:
    """Who holds the lock there now; None where nobody does, or its owner is gone."""
    living = [holder for holder in _look(session) if not holder.dead]
    return living[0] if living else None


class BoardLock:
    """Holds a board's lock while its `with` block runs.

    Raises:
        BoardError: somebody else holds it (told are owner and age), or it cannot be written.
    """

    def __init__(self, session: Session, command: str) -> None:
        self._session = session
        self._owner = f"{_here()} process {os.getpid()} ({command})"
        self._token = secrets.token_hex(8)
        self._keeper: _Keeper | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock; one whose owner is gone is broken first.

        Raises:
            BoardError: it is held, or cannot be written.
        """
        for _ in range(ATTEMPTS):
            keeper = _Keeper(self._session, self._owner, self._token)
            if keeper.answer == "locked":
                self._keeper = keeper
                self._yield_to_others()
                return
            if keeper.answer != "held":
                raise keeper.problem or BoardError(
                    f"{self._session.name}: {self._session.home} cannot be written, so no lock could be taken there: "
                    "fix its permissions or its disk, or set EDGEKD_BOARD_HOME to another directory"
                )
            self._break_or_refuse()
        raise BoardError(f"{self._session.name}: its lock changes hands all the time; try again later")

    def _yield_to_others(self) -> None:
        """Refuse where another login of the board was first; what is left of a dead one is told and ignored."""
        try:
            others = [holder for holder in _look(self._session) if holder.whose != "own"]
            for holder in others:
                if holder.dead:
                    logger.warning(
                        "%s: %s was left by %s, whose process is gone: it counts for nothing. It is another login's "
                        "to remove",
                        *(self._session.name, holder.path, holder),
                    )
                elif holder.whose == "older":
                    raise self._refusal(holder)
        except BaseException:
            self.release()
            raise

    def _refusal(self, holder: Holder) -> BoardError:
        return BoardError(
            f"{self._session.name}: the board is locked by {holder}. Two measurements at once would spoil each "
            "other: wait until it ends. A lock whose owner is gone is broken by itself"
        )

    def _break_or_refuse(self) -> None:
        holder = _own(self._session)
        if holder is None or holder.token == self._token:
            pass
        elif not holder.dead:
            # A heart that is late may belong to one who has just died: give it time to show.
            deadline = time.monotonic() + DEAD_AFTER_S
            while not holder.dead and holder.silent_s > BEAT_S + 1 and time.monotonic() < deadline:
                time.sleep(2.0)
                if (holder := _own(self._session)) is None:
                    return
        if holder is not None and holder.silent_s > DEAD_AFTER_S and holder.alive:
            # The board's clock may have jumped: a living heart beats within this time.
            time.sleep(BEAT_S + 1)
            holder = _own(self._session)
        if holder is None:
            return
        if not holder.dead and holder.token != self._token:
            raise self._refusal(holder)
        logger.warning("%s: broke the lock of %s: its owner is gone", self._session.name, holder)
        self._session.shell(_BREAK, self._session.home, holder.token, holder.process, check=False)

    def renew(self) -> None:
        """Take the lock again after the connection was lost and made anew."""
        self.release()
        self.acquire()

    def release(self) -> None:
        """Give the lock back. Releasing twice is fine."""
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            keeper.end()


class _Keeper(threading.Thread):
    """Runs the script that holds the lock, and keeps its heart beating. `answer` is its first word."""

    def __init__(self, session: Session, owner: str, token: str) -> None:
        super().__init__(daemon=True)
        self._session = session
        self._command = ["sh", "-c", _HOLD, "edgekd", session.home, owner, token]
        self._answered, self._stop_beating = threading.Event(), threading.Event()
        self.answer = ""
        self.problem: BoardError | None = None
        self.start()
        self._answered.wait(ANSWER_TIMEOUT_S)

    def run(self) -> None:
        """Until told to end, or the connection is gone."""
        try:
            self._session.stream(
                self._command,
                stdin=self._beats(),
                on_line=self._take,
                timeout_s=HOLD_TIMEOUT_S,
                idle_timeout_s=HOLD_TIMEOUT_S,
            )
        except BoardError as error:
            self.problem = error
        finally:
            self._answered.set()

    def _take(self, line: str) -> None:
        self.answer = self.answer or line.strip()
        self._answered.set()

    def _beats(self) -> Iterator[bytes]:
        while not self._stop_beating.wait(BEAT_S):
            yield b"\n"

    def end(self) -> None:
        """Let the script read the end of its input, upon which it removes the lock."""
        self._stop_beating.set()
        self.join(BEAT_S)


def _look(session: Session) -> list[Holder]:
    lines = session.shell(_LOOK, session.home).stdout.splitlines()
    return [Holder(lines[first : first + _LOOK_LINES]) for first in range(0, len(lines), _LOOK_LINES)][:100]


def _own(session: Session) -> Holder | None:
    return next((holder for holder in _look(session) if holder.whose == "own"), None)


def _here() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _is_a_dead_process_here(owner: str) -> bool:
    """Whether the owner is a process of this very machine that has ended."""
    where, _, rest = owner.partition(" process ")
    number = parse_integer(rest.split(" ")[0]) if rest else None
    if where != _here() or number is None or number < 1:
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _duration(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h {seconds % 3600 // 60} min"
