"""What `edgekd distill` is to do, and the files that it writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.errors import ConfigurationError
from edgekd.pipeline.distillation.flags import TeachingFlags
from edgekd.pipeline.settings import read_recipe
from edgekd.records import Recipe, TaskChoice

if TYPE_CHECKING:
    from torch import nn


def resolve_distillation(recipe_path: Path | None, task: str | None, seed: int | None, flags: TeachingFlags) -> Recipe:
    """The recipe with the flags over it.

    Raises:
        ConfigurationError: everything wrong with the flags, or with the recipe's file.
    """
    recipe = flags.over(read_recipe(recipe_path) if recipe_path is not None else Recipe())
    top: dict[str, object] = {}
    if task is not None and task != recipe.task.name:
        top["task"] = TaskChoice(name=task)
    if seed is not None:
        top["seed"] = seed
    return recipe.model_copy(update=top)


def checkpoint_directory(path: Path | None) -> Path | None:
    """The directory, made where it is missing.

    Raises:
        ConfigurationError: it cannot be made.
    """
    if path is not None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"--checkpoints {path}: cannot be made: {error}") from error
    return path


def require_writable(path: Path | None) -> None:
    """Refuse a place for `--save` in which nothing can be written, before anything is trained.

    Raises:
        ConfigurationError: its directory does not exist or cannot be written, or it is a directory itself.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigurationError(f"--save {path}: is a directory: name a file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigurationError(f"--save {path}: {path.parent} is no directory that can be written")


def write_weights(student: nn.Module, path: Path) -> None:
    """Write a state dict.

    Raises:
        ConfigurationError: it cannot be written.
    """
    import torch

    temporary = path.with_name(path.name + ".part")
    try:
        torch.save(student.state_dict(), temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise ConfigurationError(f"--save {path}: cannot be written: {error}") from error
