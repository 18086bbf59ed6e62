"""The boards that this machine has used: a small file of its own, so that a person can find them again."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import platformdirs
from pydantic import TypeAdapter, ValidationError

from edgekd.errors import ConfigurationError
from edgekd.records.board import KnownBoard
from edgekd.store.atomic import write_text

logger = logging.getLogger(__name__)

KEPT = 200
_ADAPTER = TypeAdapter(tuple[KnownBoard, ...])


def boards_file() -> Path:
    """Where the boards are remembered."""
    return Path(platformdirs.user_state_dir("edgekd")) / "boards.json"


def known_boards() -> tuple[KnownBoard, ...]:
    """The boards used before, the last one first.

    Raises:
        ConfigurationError: the file cannot be read or is not what edgekd writes.
    """
    path = boards_file()
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}): remove it, edgekd writes it anew") from error


def remember_board(board: KnownBoard) -> None:
    """Put a board first among the known ones. Where that cannot be written the work goes on, with a warning."""
    try:
        others = [known for known in known_boards() if known.board != board.board]
        path = boards_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [known.model_dump(mode="json") for known in (board, *others)[:KEPT]]
        write_text(path, json.dumps(rows, indent=2) + "\n")
    except (OSError, ConfigurationError) as error:
        logger.warning("the board is not remembered for `edgekd board list`: %s", error)
