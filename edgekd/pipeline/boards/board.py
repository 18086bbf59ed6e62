"""`edgekd board …`: look a board over, list, bundle, clean."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from edgekd.board.connection.open import open_session
from edgekd.board.emulation import EmulatedBoard, machine_of
from edgekd.board.examination.doctor import check_board
from edgekd.board.provisioning.bundle import Bundle, cached_bundle, parse_target
from edgekd.board.provisioning.storage import board_storage, clean
from edgekd.errors import ConfigurationError
from edgekd.load import load_profile
from edgekd.pipeline.console import Progress
from edgekd.pipeline.fitting.reporting import utc_text
from edgekd.records import RuntimeName
from edgekd.records.board import BoardCheck, BoardStorage, KnownBoard
from edgekd.store.atomic import writing
from edgekd.store.boards import known_boards, remember_board

__all__ = ["EmulatedBoard", "Reach", "bundle", "check", "clean_board", "known_boards", "machine_of", "storage"]


@dataclass(frozen=True)
class Reach:
    """Which board, and how to log in there."""

    board: str
    identity: Path | None = None
    accept_new_host_key: bool = False


def check(reach: Reach, profile_name: str | None, runtime: RuntimeName | None, progress: Progress) -> BoardCheck:
    """Look a board over.

    Raises:
        ConfigurationError: no such profile, or a board that is not understood.
        BoardError: the board cannot be reached.
    """
    profile = load_profile(profile_name) if profile_name else None
    wanted: RuntimeName = runtime or (profile.operating_point.runtime if profile else "tflite")
    progress.stage("check", reach.board)
    with open_session(reach.board, identity=reach.identity, accept_new_host_key=reach.accept_new_host_key) as session:
        found = check_board(session, profile, wanted)
    remember(reach.board, found.items[0].found, "board check")
    return found


def remember(board: str, description: str, command: str) -> None:
    """Remember a board that was reached, for `edgekd board list`."""
    remember_board(KnownBoard(board=board, description=description, last_used_utc=utc_text(), last_command=command))


def storage(reach: Reach) -> BoardStorage:
    """What edgekd has put on a board.

    Raises:
        BoardError: the board cannot be reached.
    """
    with open_session(reach.board, identity=reach.identity, accept_new_host_key=reach.accept_new_host_key) as session:
        return board_storage(session)


def clean_board(reach: Reach) -> tuple[BoardStorage, list[str]]:
    """Remove everything that edgekd put on a board; what there was, and what of others remains.

    Raises:
        BoardError: the board cannot be reached, or is locked.
    """
    with open_session(reach.board, identity=reach.identity, accept_new_host_key=reach.accept_new_host_key) as session:
        return clean(session)


def bundle(platform: str, python: str, runtime: RuntimeName, out: Path | None, progress: Progress) -> Bundle:
    """Make the bundle for boards of a platform and Python, in this machine's cache, and copy it to `out`.

    Raises:
        ConfigurationError: a platform or Python that is not understood, or `out` cannot be written.
        BoardError: no wheels fit, or they cannot be downloaded.
    """
    target = parse_target(platform, python)
    progress.stage("bundle", f"{runtime} for {target}")
    made = cached_bundle(runtime, target)
    if out is None:
        return made
    try:
        with writing(out) as partial:
            shutil.copyfile(made.path, partial)
    except OSError as error:
        raise ConfigurationError(f"--out {out} cannot be written: {error.strerror or error}") from error
    return made
