"""Ends this process when the host is gone, and says now and then that it is alive."""

from __future__ import annotations

import os
import select
import signal
import threading
import time

from .wire import Wire, vanish

ALIVE_AFTER_S = 8.0


def read_job_line(descriptor: int, limit: int = 1 << 20) -> bytes:
    """The first line of standard input; what follows stays unread."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < limit:
        chunk = os.read(descriptor, 65536)
        if not chunk:
            break
        line += chunk
    return bytes(line)


def hold(wire: Wire, descriptor: int, deadline_s: float, watch: bool = True) -> None:
    """Watch standard input from a thread, and let the kernel end this process at the deadline.

    The thread sleeps in the kernel: it costs the timed runs nothing. It wakes when the host closes standard input
    (it ended, was interrupted, or the connection dropped), and speaks only when nothing was sent for a while, which
    in a timed pass happens only where a single inference takes that long. Without `watch` the job reads standard
    input itself.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, deadline_s)
    if watch:
        threading.Thread(target=_watch, args=(wire, descriptor), daemon=True).start()


def _watch(wire: Wire, descriptor: int) -> None:
    while True:
        silent_s = time.monotonic() - wire.last_sent
        ready, _, _ = select.select([descriptor], [], [], max(ALIVE_AFTER_S - silent_s, 0.1))
        if ready and not os.read(descriptor, 4096):
            vanish()
        if time.monotonic() - wire.last_sent >= ALIVE_AFTER_S:
            wire.send("alive")


def answer_clock(wire: Wire, descriptor: int) -> None:
    """Answer each byte with this board's monotonic clock, so that the host learns how its own stands to it.

    The first line comes unasked: what is sent before it could be taken for a part of the job.
    """
    wire.send("clock", at_ns=time.perf_counter_ns())
    while os.read(descriptor, 1):
        wire.send("clock", at_ns=time.perf_counter_ns())
