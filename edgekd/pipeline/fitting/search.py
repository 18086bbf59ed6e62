"""Which student to keep: sizes in turn, or a search by short distillation runs. Only the validation split decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekd.core.search import Search, short_schedule
from edgekd.core.sizing import Trial, choose
from edgekd.nn.students import Student
from edgekd.pipeline.console import Progress
from edgekd.pipeline.stages import StageRunner, TrainedModel
from edgekd.records import Candidate, Training

ASKED_AT_ONCE = 2
"""Short runs between two looks at what all of them say."""

Distil = Callable[[str, Candidate, Training], tuple[Student, TrainedModel]]
"""Trains a candidate under a stage's name and schedule. A weight-sharing network could answer this call."""

Judge = Callable[[Student, Candidate], tuple[bool, ...]]
"""Whether a student is right, for each validation input in order."""

NameOf = Callable[[str, str], str]
"""The stage's name for a prefix and a candidate's label; the same two always get the same name."""


@dataclass(frozen=True)
class Selected:
    """The student that was chosen, fully trained."""

    candidate: Candidate
    student: Student
    record: TrainedModel


class Selection:
    """Trains candidates and chooses among them."""

    def __init__(
        self, distil: Distil, judge: Judge, name_of: NameOf, full: Training, progress: Progress, stages: StageRunner
    ) -> None:
        self.distil, self.judge, self.name_of, self.full = distil, judge, name_of, full
        self.progress, self.stages = progress, stages

    def ladder(self, candidates: Sequence[Candidate], prefix: str = "student") -> Selected:
        """Smallest first, growing until accuracy on the validation split stops rising by more than its noise."""
        trials: list[Trial] = []
        trained: list[Selected] = []
        for candidate in candidates:
            trial, selected = self._run(prefix, candidate, self.full)
            trials.append(trial)
            trained.append(selected)
            if choose(trials).stop:
                break
        chosen = choose(trials)
        self.progress.update(f"chosen: {trials[chosen.best].name}: {chosen.reason}")
        self.stages.remark(trials[-1].name, {"chosen": trials[chosen.best].name, "reason": chosen.reason})
        return trained[chosen.best]

    def halving(self, search: Search, pool: int) -> Selected:
        """Short runs of `pool` candidates, then a whole one of that of which they let expect most.

        Half of the pool fills the budget in different ways; the others are what the short runs so far speak for. Three
        more short runs are worth more than a second finalist: see benchmarks/search/.
        """
        short = short_schedule(self.full)
        count = first_asked(pool)
        while len(search.scored) < pool:
            asked = search.ask(min(count, pool - len(search.scored)))
            if not asked:
                break
            for candidate in asked:
                trial, _ = self._run("short", candidate, short)
                search.tell(candidate, trial.accuracy)
            count = ASKED_AT_ONCE
        (best,) = search.best(1)
        trial, selected = self._run("student", best.candidate, self.full)
        reason = f"the most promising after {len(search.scored)} short runs"
        self.progress.update(f"chosen: {trial.name}: {reason}")
        self.stages.remark(trial.name, {"chosen": trial.name, "reason": reason})
        return selected

    def _run(self, prefix: str, candidate: Candidate, schedule: Training) -> tuple[Trial, Selected]:
        name = self.name_of(prefix, candidate.label)
        epochs = "" if schedule == self.full else f", {schedule.epochs} epochs"
        self.progress.stage(name, f"{candidate.label} ({candidate.parameters} parameters{epochs})")
        student, record = self.distil(name, candidate, schedule)
        return Trial(name, self.judge(student, candidate)), Selected(candidate, student, record)


def first_asked(pool: int) -> int:
    """How many of `pool` short runs go to candidates that fill the budget in different ways."""
    return (pool + 1) // 2
