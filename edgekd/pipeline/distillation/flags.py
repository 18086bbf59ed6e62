"""What the command line says of teaching, put over a recipe; every flag that is wrong at once. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekd.core.profile_names import nearest
from edgekd.errors import UsageError
from edgekd.records import (
    OBJECTIVE_RECORDS,
    REGIMES,
    Distillation,
    Hard,
    Objective,
    Recipe,
    Record,
    TuneSearch,
    record_of_kind,
)


def set_fields(record: Record) -> dict[str, object]:
    """What a record sets itself, by name: with it, another record can be made that leaves the rest to defaults."""
    return {name: getattr(record, name) for name in record.model_fields_set}


def objectives_of_kind(kind: str) -> tuple[Objective, ...]:
    """A kind beside the labels, with the weights that its record suggests; `hard` alone.

    Raises:
        UsageError: there is no such kind; suggests the nearest.
    """
    record = record_of_kind(kind)
    if record is None:
        known = [str(found.model_fields["kind"].default) for found in OBJECTIVE_RECORDS]
        raise UsageError(f"--objective {kind}: {_unknown('kind', kind, known)}")
    if record is Hard:
        return (Hard(),)
    hard, own = record.beside_hard
    return (Hard(weight=hard), record.model_validate({"weight": own}))


@dataclass(frozen=True)
class TeachingFlags:
    """What the command line says of teaching; None leaves the recipe's. `objective` may be `auto`."""

    objective: str | None = None
    regime: str | None = None
    labels: int | None = None
    teacher: Path | None = None
    tune_minutes: float | None = None
    tune_search: TuneSearch | None = None
    start: Path | None = None

    def over(self, recipe: Recipe) -> Recipe:
        """The recipe with these flags over it.

        Raises:
            UsageError: everything wrong with the flags.
        """
        changed: dict[str, object] = {}
        problems: list[str] = []
        if self.objective == "auto":
            changed["choose"] = "auto"
        elif self.objective is not None:
            changed["choose"] = "given"
            try:
                changed["objectives"] = objectives_of_kind(self.objective)
            except UsageError as error:
                problems.append(str(error))
        if self.regime is not None:
            changed["regime"] = self.regime
            if self.regime not in REGIMES:
                problems.append(f"--regime {self.regime}: {_unknown('regime', self.regime, list(REGIMES))}")
        if self.start is not None:
            changed["continual"] = recipe.distill.continual.model_copy(update={"start": str(Path.cwd() / self.start)})
            changed.setdefault("regime", "continual")
        if self.labels is not None:
            changed["semi_supervised"] = recipe.distill.semi_supervised.model_copy(update={"labels": self.labels})
        if self.tune_minutes is not None:
            changed["tune_minutes"] = self.tune_minutes
            if not self.tune_minutes > 0:
                problems.append(f"--tune-minutes {self.tune_minutes:g}: must be above 0")
        if self.tune_search is not None:
            changed["tune_search"] = self.tune_search
        if problems:
            raise UsageError("\n".join(problems))
        distill = Distillation.model_validate({**set_fields(recipe.distill), **changed})
        brought = {} if self.teacher is None else {"teacher_file": str(Path.cwd() / self.teacher)}
        return recipe.model_copy(update={"distill": distill, **brought})


def _unknown(what: str, given: str, known: list[str]) -> str:
    suggestion = nearest(given, known)
    hint = f"did you mean {suggestion}? " if suggestion else ""
    return f"there is no such {what}: {hint}there are {', '.join(known)}"
