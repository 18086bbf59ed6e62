"""What people see on stderr while a command works."""

from __future__ import annotations

import logging
import sys
import time

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.status import Status

QUIET_SECONDS = 10.0
"""Without a terminal, lines of progress inside a stage are at least so far apart."""

stderr = Console(stderr=True, highlight=False)


class ConsoleProgress:
    """Stages as lines on stderr; inside a stage one moving line on a terminal, or a line now and then elsewhere."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._started = time.monotonic()
        self._last = 0.0

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def _clear(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def stage(self, name: str, detail: str = "") -> None:
        """A stage begins."""
        self._clear()
        elapsed = time.monotonic() - self._started
        stderr.print(f"[dim]{elapsed:6.1f} s[/dim]  [bold]{escape(name)}[/bold]  {escape(detail)}", soft_wrap=True)
        self._last = 0.0
        if stderr.is_terminal:
            self._status = stderr.status("")
            self._status.start()

    def update(self, message: str) -> None:
        """The stage that runs has come further."""
        if self._status is not None:
            self._status.update(escape(message))
        elif time.monotonic() - self._last >= QUIET_SECONDS:
            stderr.print(f"          {escape(message)}", soft_wrap=True)
            self._last = time.monotonic()

    def warn(self, message: str) -> None:
        """Something a person must know."""
        stderr.print(f"[yellow]warning:[/yellow] {escape(message)}", soft_wrap=True)


def set_up_logging(verbose: bool) -> None:
    """Send edgekd's log to stderr: what matters, or with `verbose` everything."""
    handler = RichHandler(console=stderr, show_path=False, show_time=False, show_level=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
    logging.getLogger("edgekd").setLevel(logging.DEBUG if verbose else logging.INFO)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
