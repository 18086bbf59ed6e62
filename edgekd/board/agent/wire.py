"""Lines of JSON to the host."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any, NoReturn

MESSAGE_LIMIT = 2000


class AgentError(Exception):
    """A foreseen failure; `code` tells the host which."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Wire:
    """Writes one record a line, from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self.last_sent = time.monotonic()

    def send(self, kind: str, **values: Any) -> None:
        """Write one record; a host that is gone ends this process."""
        data = (json.dumps({"kind": kind, **values}, allow_nan=False) + "\n").encode()
        with self._lock:
            self.last_sent = time.monotonic()
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except OSError:
                    vanish()

    def send_error(self, code: str, message: str) -> None:
        """Tell the host why the job could not be done."""
        self.send("error", code=code, message=message[:MESSAGE_LIMIT])


def private_stdout() -> int:
    """Keep standard output for records alone: whatever a runtime prints there goes to standard error."""
    descriptor = os.dup(1)
    sys.stdout.flush()
    os.dup2(2, 1)
    return descriptor


def vanish() -> NoReturn:
    """End at once, without running anything: nobody is there to listen."""
    os._exit(3)
