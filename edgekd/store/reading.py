"""Reading a record back."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from edgekd.errors import ConfigurationError

R = TypeVar("R", bound=BaseModel)


def read_record(path: Path, record_type: type[R]) -> R:
    """The record that a JSON file holds.

    Raises:
        ConfigurationError: it cannot be read, or does not hold a valid record of that type.
    """
    try:
        return record_type.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigurationError(
            f"{path} is not a valid {record_type.__name__}: {place}: {first['msg']} "
            f"({error.error_count()} problems). It was cut short, edited or written by another version of edgekd"
        ) from error
