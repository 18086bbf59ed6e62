"""Which student to keep: sizes in turn, or a search by short distillation runs. Only the validation split decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekd.core.search import Search, halving_schedules, survivors
from edgekd.core.sizing import Trial, choose
from edgekd.nn.students import Student
from edgekd.pipeline.console import Progress
from edgekd.pipeline.stages import StageRunner, TrainedModel
from edgekd.records import Candidate, Training

RUNGS = 3
"""Rungs of successive halving: a ninth, a third, all of the epochs."""

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
        """Short runs of `pool` candidates, the better third of them longer, the best of those to the end.

        Half of the pool are sizes that fit, smallest first, until a larger one gains nothing beyond noise; the others
        are children of the best. The last rung is a ladder again: of finalists that are as good, the smallest.
        """
        schedules = halving_schedules(self.full, RUNGS)
        trials: list[Trial] = []
        for candidate in search.ask((pool + 1) // 2):
            trial = self._told(search, candidate, schedules[0])
            trials.append(trial)
            if choose(trials).stop:
                self.progress.update(f"larger students gain nothing over {trials[choose(trials).best].name}")
                break
        for candidate in search.ask(pool - len(trials)):
            self._told(search, candidate, schedules[0])
        alive = [scored.candidate for scored in search.best(survivors(len(search.scored)))]
        for rung, schedule in enumerate(schedules[1:-1], start=2):
            scores = [self._run(f"rung{rung}", candidate, schedule)[0].accuracy for candidate in alive]
            order = sorted(range(len(alive)), key=lambda index: (-scores[index], alive[index].macs))
            alive = [alive[index] for index in order[: survivors(len(alive))]]
        return self.ladder(sorted(alive, key=lambda candidate: candidate.macs))

    def _told(self, search: Search, candidate: Candidate, schedule: Training) -> Trial:
        trial, _ = self._run("rung1", candidate, schedule)
        search.tell(candidate, trial.accuracy)
        return trial

    def _run(self, prefix: str, candidate: Candidate, schedule: Training) -> tuple[Trial, Selected]:
        name = self.name_of(prefix, candidate.label)
        epochs = "" if schedule == self.full else f", {schedule.epochs} epochs"
        self.progress.stage(name, f"{candidate.label} ({candidate.parameters} parameters{epochs})")
        student, record = self.distil(name, candidate, schedule)
        return Trial(name, self.judge(student, candidate)), Selected(candidate, student, record)
