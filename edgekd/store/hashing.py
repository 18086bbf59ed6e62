"""Hashes of files and of a stage's inputs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from edgekd.errors import ConfigurationError


def hash_file(path: Path) -> str:
    """The sha256 of a file's bytes, in lower-case hexadecimal.

    Raises:
        ConfigurationError: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error


def hash_inputs(**inputs: Any) -> str:
    """The sha256 of what a stage depends on: records, strings, numbers, lists and dicts of them, by name.

    A file is named by its hash, not by its path: pass `hash_file(path)`. The order of keys does not matter.
    """
    content = json.dumps({name: _plain(value) for name, value in inputs.items()}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a stage's inputs are records and plain values, not {type(value).__name__}")
