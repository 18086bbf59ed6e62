"""Tries again, with growing pauses, what may be done twice: connecting, and putting files that are skipped once there.

Measuring is not tried again: a run that was cut off says nothing, and a person should know that it was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from edgekd.board.connection.pump import LinkLostError
from edgekd.board.connection.session import Session
from edgekd.board.lock import BoardLock

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE_S = 0.5
# A fault must be told within half a minute, of which noticing a dead link takes up to twelve seconds.
RECONNECT_BUDGET_S = 10.0
LEAST_PROGRESS_S = 20.0
MOST_LOSSES = 5


def reconnecting(session: Session, lock: BoardLock, action: Callable[[], T], say: Callable[[str], None]) -> T:
    """What `action` gives; where the link is lost meanwhile, connect and lock anew and do it again.

    `action` must be safe to do twice. A link that is lost soon after it was made anew is given up.

    Raises:
        BoardError: the link stays down, or the action fails for another reason.
    """
    losses = 0
    while True:
        began = time.monotonic()
        try:
            return action()
        except LinkLostError as error:
            losses += 1
            if losses > MOST_LOSSES or (losses > 1 and time.monotonic() - began < LEAST_PROGRESS_S):
                raise
            logger.warning("%s; connecting again", error)
            say("the connection was lost: connecting again")
            _reconnect(session, lock, error)


def _reconnect(session: Session, lock: BoardLock, lost: LinkLostError) -> None:
    deadline = time.monotonic() + RECONNECT_BUDGET_S
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            session.reconnect(timeout_s=max(1.0, deadline - time.monotonic()))
            break
        except LinkLostError as error:
            if time.monotonic() + pause_s > deadline:
                raise LinkLostError(f"{lost}. It could not be connected again: {error}") from error
            time.sleep(pause_s)
            pause_s *= 2
    lock.renew()
