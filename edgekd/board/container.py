"""A container of the board's own engine, docker or podman, as the place where everything runs.

One container lives as long as the work: its first process reads standard input and ends when that ends, which is when
this side is done, died, or the link broke; the engine then removes it (`--rm`). Should the engine have been killed
meanwhile, the next run removes what is left: under the board's lock, nobody else's container carries our label.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from edgekd.board.connection.pump import BoardProcess, Exit
from edgekd.board.connection.session import Session
from edgekd.core.board_output import printable
from edgekd.errors import BoardError, ConfigurationError

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 90.0
LIFETIME_S = 7 * 86400.0
STOP_TIMEOUT_S = 20.0
LABEL = "edgekd.home"
SYSFS = "/run/edgekd-sys"
"""Where the board's /sys lies inside: at /sys itself engines hide the device tree."""
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:@-]{0,250}")
_UP = "edgekd-container-is-up"
# Tells of each engine there whether it has the image, who the login is, and how the GPU is handed in.
_FIND = (
    'for name in docker podman; do engine=$(command -v "$name" 2>/dev/null) || continue; '
    'said=$("$engine" image inspect --format "{{.Id}}" "$1" 2>&1); code=$?; echo "engine $name $engine"; '
    'echo "code $code"; echo "$said" | head -c 1000 | tr "\\n" " "; echo; echo "user $(id -u) $(id -g) $(id -G)"; '
    '"$engine" info 2>/dev/null | grep -qi "runtimes:.*nvidia" && echo "gpu runtime"; '
    'if [ -e /etc/cdi/nvidia.yaml ] || [ -e /var/run/cdi/nvidia.yaml ]; then echo "gpu cdi"; fi; done; exit 0'
)
_REMOVE_LEFT = (
    'left=$("$1" ps -aq --filter "label=$2" 2>/dev/null); [ -z "$left" ] || "$1" rm -f $left >/dev/null 2>&1; exit 0'
)


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine on a board: its name and path, the login's ids, and what hands it the GPU."""

    name: str
    path: str
    user: tuple[str, ...]
    gpu: str

    def options(self) -> list[str]:
        """What makes files in a mounted directory the login's own, and the GPU reachable."""
        uid, gid, *groups = self.user
        if self.name == "docker":
            options = [f"--user={uid}:{gid}", *(f"--group-add={group}" for group in groups)]
        else:
            options = [] if uid == "0" else ["--userns=keep-id"]
        if self.gpu == "runtime":
            options += ["--runtime=nvidia", "--env=NVIDIA_VISIBLE_DEVICES=all", "--env=NVIDIA_DRIVER_CAPABILITIES=all"]
        elif self.gpu == "cdi":
            options += ["--device=nvidia.com/gpu=all"]
        return options


def find_engine(session: Session, image: str) -> Engine:
    """The board's engine that has the image.

    Raises:
        ConfigurationError: that is no name of an image.
        BoardError: there is no engine, the login may not use it, or it has no such image; says what to do.
    """
    if not _IMAGE.fullmatch(image):
        raise ConfigurationError(f"--container '{printable(image, 100)}' is not the name of an image")
    said = session.shell(_FIND, image, timeout_s=60.0).stdout
    problems = []
    for part in re.split(r"^engine ", said, flags=re.MULTILINE)[1:]:
        lines = [*part.splitlines(), "", "", ""]
        first, code, answer, user = lines[:4]
        name, _, path = first.partition(" ")
        if code == "code 0" and path.startswith("/"):
            ids = tuple(word for word in user.split()[1:] if word.isdigit())
            found = [line.removeprefix("gpu ") for line in lines[4:] if line.startswith("gpu ")]
            return Engine(name, path, ids if len(ids) > 1 else ("0", "0"), found[0] if found else "")
        problems.append(_problem(name, image, answer))
    if not problems:
        raise BoardError(
            f"{session.name}: neither docker nor podman is there, and --container needs one: install it "
            "(sudo apt install podman), or leave --container out"
        )
    raise BoardError(f"{session.name}: {'; '.join(problems)}")


def _problem(name: str, image: str, answer: str) -> str:
    said = printable(answer.strip()[:300], 300)
    low = answer.lower()
    if "permission denied" in low:
        return f"this login may not use {name} ({said}): sudo usermod -aG {name} $USER there, then log in again"
    if "cannot connect" in low or "is the docker daemon running" in low:
        return f"{name} is there but does not run ({said}): sudo systemctl start {name}"
    if "no such image" in low or "not known" in low or "not found" in low or "unable to inspect" in low:
        return (
            f"{name} has no image '{image}' ({said}): `{name} pull {image}` there, or without internet "
            f"`docker save {image} | ssh BOARD {name} load`. edgekd downloads none by itself"
        )
    return f"{name} could not be asked for image '{image}': {said}"


@contextlib.contextmanager
def within(session: Session, image: str | None, say: Callable[[str], None]) -> Iterator[Session]:
    """The session itself, or one into a container of `image` on its board, removed at the end whatever happens.

    The board's lock must be held.

    Raises:
        ConfigurationError: that is no name of an image.
        BoardError: there is no engine or image, or the container does not start.
    """
    if image is None:
        yield session
        return
    engine = find_engine(session, image)
    say(f"starting a container of {image} with {engine.name}")
    with ContainerSession(session, engine, image) as inside:
        yield inside


class ContainerSession(Session):
    """Commands run inside a container; edgekd's directory on the board lies there at the same path."""

    def __init__(self, board: Session, engine: Engine, image: str) -> None:
        self.name = f"{board.name}, container of {image}"
        self.home, self.is_local = board.home, board.is_local
        self._board, self._engine, self._image = board, engine, image
        self._keeper: _Keeper | None = None
        self._begin()

    @property
    def sysfs(self) -> str:
        """The board's /sys, mounted where nothing of it is hidden."""
        return SYSFS

    def _begin(self) -> None:
        self._board.shell('mkdir -p -- "$1"', self.home)
        label = f"{LABEL}={self.home}"
        self._board.shell(_REMOVE_LEFT, self._engine.path, label, timeout_s=60.0)
        self._container = f"edgekd-{secrets.token_hex(6)}"
        mounts = [f"--volume={self.home}:{self.home}", f"--volume={self._board.sysfs}:{SYSFS}:ro"]
        command = [self._engine.path, "run", "--rm", "-i", f"--name={self._container}", f"--label={label}"]
        command += ["--network=none", *mounts, *self._engine.options(), "--entrypoint=sh", self._image]
        command += ["-c", f"echo {_UP}; cat >/dev/null"]
        keeper = _Keeper(self._board, command)
        if not keeper.is_up():
            problem = keeper.said()
            keeper.end()
            self._remove()
            raise BoardError(
                f"{self._board.name}: {self._engine.name} could not start a container of {self._image}: {problem}"
            )
        self._keeper = keeper

    def start(self, command: Sequence[str]) -> BoardProcess:
        """Start `command` inside."""
        return self._board.start([self._engine.path, "exec", "-i", self._container, *command])

    def reconnect(self, timeout_s: float) -> None:
        """Connect to the board anew, and start another container."""
        self._keeper = None
        self._board.reconnect(timeout_s)
        self._begin()

    def close(self) -> None:
        """Let the container end, and remove it if it does not."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.end()
            self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(BoardError):
            self._board.run([self._engine.path, "rm", "-f", self._container], timeout_s=STOP_TIMEOUT_S, check=False)

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
        end = super()._exchange(
            command, chunks, on_stdout, hold_stdin=hold_stdin, timeout_s=timeout_s, idle_timeout_s=idle_timeout_s
        )
        # Engines tell a signal inside as 128 + its number, as shells do.
        if end.exit_code is not None and 129 <= end.exit_code <= 192:
            return Exit(None, end.exit_code - 128, end.stderr)
        return end


class _Keeper(threading.Thread):
    """Runs the engine's `run` and holds its standard input open."""

    def __init__(self, board: Session, command: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self._board, self._command = board, command
        self._up, self._ended, self._over = threading.Event(), threading.Event(), threading.Event()
        self._lines: list[str] = []
        self.start()

    def run(self) -> None:
        """Until told to end, or the container does."""
        try:
            result = self._board.stream(
                self._command,
                stdin=self._nothing(),
                on_line=self._take,
                timeout_s=LIFETIME_S,
                idle_timeout_s=LIFETIME_S,
            )
            self._lines.append(result.stderr.strip()[-600:])
        except BoardError as error:
            self._lines.append(str(error))
        finally:
            self._ended.set()
            self._up.set()

    def _take(self, line: str) -> None:
        if line.strip() == _UP:
            self._up.set()
        elif len(self._lines) < 20:
            self._lines.append(line)

    def _nothing(self) -> Iterator[bytes]:
        while not self._over.wait(1.0) and not self._ended.is_set():
            yield b""

    def is_up(self) -> bool:
        """Wait until the container runs; False where it does not come up."""
        return self._up.wait(START_TIMEOUT_S) and not self._ended.is_set()

    def said(self) -> str:
        """What the engine said instead."""
        return printable(" ".join(self._lines).strip()[-600:], 600) or "it said nothing"

    def end(self) -> None:
        """Let the container read the end of its input."""
        self._over.set()
        self.join(STOP_TIMEOUT_S)
