"""Where a new run may go, and what it is called."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

from edgekd.errors import ConfigurationError
from edgekd.store.atomic import output_error

IDENTITY_FILE = "run.json"


def _slug(name: str) -> str:
    stem = Path(name).stem if name.endswith(".py") else name
    return re.sub(r"[^A-Za-z0-9_.]+", "-", stem).strip("-.") or "task"


def require_free(out: Path) -> None:
    """Refuse a place for a new run that something else has taken.

    Raises:
        ConfigurationError: it is a file, holds a run, is not empty or cannot be read.
    """
    if out.is_symlink() and not out.exists():
        raise ConfigurationError(f"--out {out} is a link to nothing")
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigurationError(f"--out {out} is a file: name a folder")
    if (out / IDENTITY_FILE).is_file():
        raise ConfigurationError(f"--out {out} holds a run already: go on with it by --resume, or choose another --out")
    try:
        taken = next(out.iterdir(), None)
    except OSError as error:
        raise output_error(out, error) from error
    if taken is not None:
        raise ConfigurationError(f"--out {out} is not empty and is not a run ({taken.name} is in it): choose another")


def unused_path(runs: Path, now: datetime.datetime, task: str, profile: str) -> Path:
    """`<runs>/<utc>-<task>-<profile>`, with a number after it where two runs begin in one second."""
    name = f"{now:%Y%m%dT%H%M%SZ}-{_slug(task)}-{_slug(profile)}"
    path, number = runs / name, 2
    while path.exists():
        path, number = runs / f"{name}-{number}", number + 1
    return path
