"""The settings beside the checkpoints of `edgekd distill`: other ones are refused before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekd.errors import BuildError, ConfigurationError
from edgekd.records import Recipe
from edgekd.store import hash_file, write_text
from edgekd.tasks import Task

FILE = "settings.json"
READ = {"task", "student", "teacher", "distill", "device", "seed"}
"""What of a recipe the trainings depend on."""
MOST_NAMED = 10


def hold_to(folder: Path, recipe: Recipe, task: Task) -> None:
    """Keep what a directory's checkpoints depend on in it; refuse other settings where there are checkpoints.

    Args:
        folder: of the checkpoints.
        recipe: what is to be followed, with the task's schedules in it.
        task: loaded.

    Raises:
        ConfigurationError: the checkpoints are of other settings, each of which is named; or nothing can be written.
        BuildError: the file of settings there is damaged.
    """
    asked = {
        **recipe.model_dump(mode="json", include=READ),
        "teacher_file": None if recipe.teacher_file is None else hash_file(Path(recipe.teacher_file))[:16],
        "data": task.content_hash()[:16],
    }
    path = folder / FILE
    if path.is_file() and any(folder.glob("*.ckpt")):
        differing = [
            f"{name} is {_shown(there)} there, {_shown(here)} asked"
            for name, there, here in _differing(_read(path), asked)
        ]
        if differing:
            more = len(differing) - MOST_NAMED
            named = "; ".join(differing[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
            raise ConfigurationError(
                f"--checkpoints {folder} is of a run with other settings: {named}. Repeat that run's settings, or name "
                "another directory"
            )
    write_text(path, json.dumps(asked, indent=2))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"{path} is damaged: remove its directory to start over: {error}") from error
    if not isinstance(found, dict):
        raise BuildError(f"{path} is damaged: remove its directory to start over: it holds no object")
    return found


def _differing(there: Any, here: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(there, dict) and isinstance(here, dict):
        for name in dict.fromkeys([*here, *there]):
            yield from _differing(there.get(name), here.get(name), f"{place}.{name}" if place else name)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for index, (old, new) in enumerate(zip(there, here, strict=True)):
            yield from _differing(old, new, f"{place}[{index}]")
    elif there != here:
        yield place, there, here


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)
