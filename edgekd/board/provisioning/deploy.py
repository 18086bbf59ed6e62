"""Puts a run's files on a board."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from edgekd.board.connection.session import Session
from edgekd.board.connection.transfer import check_name, put_files

logger = logging.getLogger(__name__)


def deploy_files(session: Session, files: Mapping[str, Path], run_key: str) -> str:
    """Put `files` (name → local path) into the board's directory of that run, and return that directory.

    What is there with the same hash is not sent; the rest is checked on the board before it takes its name.

    Raises:
        ConfigurationError: a run key or name that is no plain path, or a file that cannot be read.
        BoardError: the board refuses, is full, or the link broke; nothing half-written remains.
    """
    check_name(run_key)
    directory = f"{session.home}/runs/{run_key}"
    done = put_files(session, directory, files)
    logger.info(
        "%s: sent %d files (%d bytes), %d were there", session.name, len(done.sent), done.sent_bytes, len(done.skipped)
    )
    return directory
