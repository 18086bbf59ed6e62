"""What `edgekd distill` is to do: flags over the recipe; every flag that is wrong at once, before torch is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.core.profile_names import nearest
from edgekd.errors import ConfigurationError
from edgekd.load import load_recipe
from edgekd.records import OBJECTIVE_RECORDS, REGIMES, Hard, Objective, Recipe, TaskChoice, record_of_kind

if TYPE_CHECKING:
    from torch import nn


def objectives_of_kind(kind: str) -> tuple[Objective, ...]:
    """A kind beside the labels, with the weights that its record suggests; `hard` alone.

    Raises:
        ConfigurationError: there is no such kind; suggests the nearest.
    """
    record = record_of_kind(kind)
    if record is None:
        known = [str(found.model_fields["kind"].default) for found in OBJECTIVE_RECORDS]
        raise ConfigurationError(f"--objective {kind}: {_unknown('kind', kind, known)}")
    if record is Hard:
        return (Hard(),)
    hard, own = record.beside_hard
    return (Hard(weight=hard), record.model_validate({"weight": own}))


def resolve_distillation(
    recipe_path: Path | None,
    task: str | None,
    objective: str | None,
    regime: str | None,
    seed: int | None,
    labels: int | None,
) -> Recipe:
    """The recipe with the flags over it.

    Raises:
        ConfigurationError: everything wrong with the flags, or with the recipe's file.
    """
    recipe = load_recipe(recipe_path) if recipe_path is not None else Recipe()
    problems: list[str] = []
    changed: dict[str, object] = {}
    if objective is not None:
        try:
            changed["objectives"] = objectives_of_kind(objective)
        except ConfigurationError as error:
            problems.append(str(error))
    if regime is not None:
        changed["regime"] = regime
        if regime not in REGIMES:
            problems.append(f"--regime {regime}: {_unknown('regime', regime, list(REGIMES))}")
    if problems:
        raise ConfigurationError("\n".join(problems))
    if labels is not None:
        changed["semi_supervised"] = recipe.distill.semi_supervised.model_copy(update={"labels": labels})
    top: dict[str, object] = {"distill": recipe.distill.model_copy(update=changed)}
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


def _unknown(what: str, given: str, known: list[str]) -> str:
    suggestion = nearest(given, known)
    hint = f"did you mean {suggestion}? " if suggestion else ""
    return f"there is no such {what}: {hint}there are {', '.join(known)}"
