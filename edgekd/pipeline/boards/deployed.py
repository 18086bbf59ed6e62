"""The student that is deployed already, from which `continual` goes on: a run of `edgekd fit`, or a file of weights."""

from __future__ import annotations

from pathlib import Path

from edgekd.core.architecture import Architecture
from edgekd.errors import ConfigurationError
from edgekd.nn.students import Student
from edgekd.nn.weights import load_weights
from edgekd.records import Recipe, Report
from edgekd.store import RunDirectory, hash_file


def with_deployed_design(recipe: Recipe) -> Recipe:
    """The recipe with the student held to the one that `distill.continual.start` names, where that is a run.

    Raises:
        ConfigurationError: `start` with another regime; no such file or run; a run that chose no student; a student
            of the recipe's own that is another one.
    """
    start = recipe.distill.continual.start
    if start is None:
        return recipe
    if recipe.distill.regime != "continual":
        raise ConfigurationError(
            f"distill.continual.start = {start!r} is for distill.regime = 'continual', not {recipe.distill.regime!r}"
        )
    path = Path(start)
    if not path.exists():
        raise ConfigurationError(f"distill.continual.start: {path} does not exist: name a run or a file of weights")
    if path.is_file():
        return recipe
    candidate = RunDirectory.open(path).read_report().student
    if candidate is None:
        raise ConfigurationError(f"distill.continual.start: the report of {path} names no student")
    other = {name: value for name, value in recipe.student.fixed.items() if candidate.choices.get(name, value) != value}
    if recipe.student.space not in ("auto", candidate.space) or other:
        raise ConfigurationError(
            f"distill.continual.start: {path} deployed {candidate.label} of {candidate.space}, but the recipe's "
            f"[student] asks for {other or recipe.student.space}: leave it out"
        )
    held = recipe.student.model_copy(update={"space": candidate.space, "fixed": dict(candidate.choices)})
    return recipe.model_copy(update={"student": held})


def deployed_student(start: str, architecture: Architecture) -> Student:
    """The float student of a run, or of a file that `edgekd distill --save` wrote, with its weights.

    Raises:
        ConfigurationError: a run without the weights, or weights of another student.
    """
    path = Path(start)
    weights = path if path.is_file() else _weights_in(path)
    student = Student(architecture)
    whose = "the student of the recipe's [student.fixed] and the task's classes"
    load_weights(student, weights, "distill.continual.start (--from)", whose)
    return student.eval()


def _weights_in(path: Path) -> Path:
    run = RunDirectory.open(path)
    checkpoint = kept_checkpoint(run, run.read_report())
    if checkpoint is None:
        raise ConfigurationError(
            f"distill.continual.start: {path} has no float weights of the student it deployed: "
            f"`edgekd fit --resume --out {path}` makes them anew"
        )
    return checkpoint


def kept_checkpoint(run: RunDirectory, report: Report) -> Path | None:
    """The weights of the float student that a run quantized; None where they are not there, or not named."""
    if report.distillation is not None and report.distillation.student_sha256 is not None:
        files = sorted(file for file in run.checkpoint("any").parent.glob("*.pt") if file.is_file())
        return next((file for file in files if hash_file(file) == report.distillation.student_sha256), None)
    chosen = next((str(stage.detail["chosen"]) for stage in report.stages if "chosen" in stage.detail), None)
    return None if chosen is None or not run.checkpoint(chosen).is_file() else run.checkpoint(chosen)
