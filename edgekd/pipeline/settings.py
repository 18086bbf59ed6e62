"""What a run is to do, resolved: flags over recipe over profile."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from edgekd.errors import ConfigurationError, MissingExtraError
from edgekd.load import load_profile, load_recipe
from edgekd.pipeline.distillation.flags import TeachingFlags, set_fields
from edgekd.pipeline.fitting.user_space import anchored_space
from edgekd.pipeline.quantization.options import QuantizationFlags
from edgekd.records import Budget, DeviceProfile, Recipe
from edgekd.tasks import Task

logger = logging.getLogger(__name__)

RECIPE_FILE = "edgekd.toml"


@dataclass(frozen=True)
class Settings:
    """A resolved recipe, its profile, the budget in force and where each limit came from."""

    profile: DeviceProfile
    recipe: Recipe
    budget: Budget
    budget_source: dict[str, str]


def resolve(
    profile: str | None,
    recipe_path: Path | None,
    task: str | None,
    flags: Budget,
    seed: int | None,
    ablation: str | None = None,
    search: str | None = None,
    teaching: TeachingFlags = TeachingFlags(),
    rounding: QuantizationFlags = QuantizationFlags(),
    ablation_seeds: int | None = None,
    space: str | None = None,
) -> Settings:
    """Put flags over the recipe over the profile.

    Args:
        profile: a name or a path, or None for the recipe's.
        recipe_path: a recipe, or None: then `edgekd.toml` in this directory, where there is one and no task is given.
        task: a task's name or file, over the recipe's.
        flags: the limits given on the command line.
        seed: over the recipe's.
        ablation: over the recipe's.
        search: over the recipe's.
        teaching: what the command line says of teaching.
        rounding: what the command line says of quantization.
        ablation_seeds: over the recipe's.
        space: the students to choose from, over the recipe's: a name, or FILE.py:NAME.

    Raises:
        ConfigurationError: a file that cannot be read or is wrong, or no profile anywhere.
    """
    recipe = _recipe(recipe_path, task)
    if task is not None and task != recipe.task.name:
        chosen = {"name": anchored(task, Path.cwd()), "options": {}}
        recipe = recipe.model_copy(update={"task": recipe.task.model_copy(update=chosen)})
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    if ablation is not None:
        recipe = Recipe.model_validate({**set_fields(recipe), "ablation": ablation})
    if search is not None:
        student = {**set_fields(recipe.student), "search": search}
        recipe = Recipe.model_validate({**set_fields(recipe), "student": student})
    if space is not None:
        student = {**set_fields(recipe.student), "space": anchored_space(space, Path.cwd())}
        recipe = Recipe.model_validate({**set_fields(recipe), "student": student})
    if ablation_seeds is not None:
        recipe = recipe.model_copy(update={"ablation_seeds": ablation_seeds})
    recipe = rounding.over(teaching.over(recipe))
    name = anchored(profile, Path.cwd()) if profile else recipe.profile
    if name is None:
        raise ConfigurationError(
            "which board? give --profile NAME (see `edgekd profile list`) or profile = in the recipe"
        )
    device = load_profile(name)
    budget = device.budget.overridden_by(recipe.budget).overridden_by(flags)
    source = {
        constraint: "flag"
        if constraint in flags.model_fields_set
        else "recipe"
        if constraint in recipe.budget.model_fields_set
        else f"profile {device.name}"
        for constraint in budget.constraints()
    }
    return Settings(device, recipe.model_copy(update={"profile": name, "budget": budget}), budget, source)


def budget_from_flags(limits: Mapping[str, float | None]) -> Budget:
    """The limits given on the command line, by constraint name.

    Raises:
        ConfigurationError: a limit that can never hold, with the flag's name.
    """
    given = {name: value for name, value in limits.items() if value is not None}
    try:
        return Budget(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [
            f"--{str(problem['loc'][0]).replace('_', '-')} {problem['input']}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise ConfigurationError("\n".join(lines)) from error


def require_fit_extra() -> None:
    """Fail early where the modules that training and conversion need are not installed.

    Raises:
        MissingExtraError: names the first that is missing.
    """
    for module in ("torch", "onnx", "onnxruntime", "ai_edge_litert", "flatbuffers"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(module, "fit")


def anchored(name: str, folder: Path) -> str:
    """A name as it is; a path to a .py or .toml file as an absolute one, so that a run can be repeated anywhere."""
    return str((folder / Path(name).expanduser()).resolve()) if name.endswith((".py", ".toml")) else name


def _recipe(path: Path | None, task: str | None) -> Recipe:
    if path is None and task is None and Path(RECIPE_FILE).is_file():
        logger.info("recipe: %s in this directory", RECIPE_FILE)
        path = Path(RECIPE_FILE)
    if path is None:
        if task is None:
            logger.info("no recipe and no --task: the watch-gestures demo")
        return Recipe()
    return read_recipe(path)


def read_recipe(path: Path) -> Recipe:
    """A recipe's file; the paths in it are relative to its folder.

    Raises:
        ConfigurationError: it cannot be read or is wrong.
    """
    recipe = load_recipe(path)
    changed: dict[str, object] = {
        "task": recipe.task.model_copy(update={"name": anchored(recipe.task.name, path.parent)}),
        "student": recipe.student.model_copy(update={"space": anchored_space(recipe.student.space, path.parent)}),
    }
    if recipe.profile:
        changed["profile"] = anchored(recipe.profile, path.parent)
    if recipe.teacher_file:
        changed["teacher_file"] = str((path.parent / Path(recipe.teacher_file).expanduser()).resolve())
    return recipe.model_copy(update=changed)


def with_task_schedules(recipe: Recipe, task: Task) -> Recipe:
    """The recipe with the schedules that the task itself suggests, where the recipe sets none."""
    distill = recipe.distill
    if task.distill is not None and "training" not in distill.model_fields_set:
        distill = distill.model_copy(update={"training": task.distill})
    return recipe.model_copy(update={"distill": distill, "teacher": recipe.teacher or task.teacher.training})
