"""Finished stages: a record beside its files, and when it may be used again."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgekd.records import Record
from edgekd.store.atomic import write_text
from edgekd.store.hashing import hash_file

log = logging.getLogger(__name__)

R = TypeVar("R", bound=BaseModel)


class StageResult(Record):
    """A finished stage as it is kept: the hash of its inputs, its files with theirs, and its record."""

    stage: str
    input_hash: str
    record_type: str
    record: dict[str, Any]
    files: dict[str, str]


def finished(run: Path, stage_file: Path, input_hash: str, record_type: type[R]) -> R | None:
    """The record kept in `stage_file`, or None where it is not there or no longer holds.

    It no longer holds where the inputs' hash is another, or one of its files (relative to `run`) is gone or changed.
    """
    stage = stage_file.stem
    if not stage_file.is_file():
        return None
    try:
        result = StageResult.model_validate_json(stage_file.read_bytes())
        if result.input_hash != input_hash:
            log.info("stage %s: its inputs changed, it runs again", stage)
            return None
        record = record_type.model_validate_json(json.dumps(result.record))
    except (ValidationError, OSError) as error:
        log.warning("stage %s: %s cannot be used (%s), it runs again", stage, stage_file, error)
        return None
    for name, sha256 in result.files.items():
        if not (run / name).is_file() or hash_file(run / name) != sha256:
            log.warning("stage %s: its file %s is gone or changed, it runs again", stage, name)
            return None
    return record


def finish(stage_file: Path, input_hash: str, record: BaseModel, files: dict[str, str]) -> None:
    """Keep a stage's record; `files` maps paths relative to the run to their sha256.

    Raises:
        ConfigurationError: it cannot be written.
    """
    result = StageResult(
        stage=stage_file.stem,
        input_hash=input_hash,
        record_type=type(record).__name__,
        record=record.model_dump(mode="json"),
        files=files,
    )
    write_text(stage_file, result.model_dump_json(indent=2) + "\n")
