"""Which student to keep: sizes in turn, or a search by short distillation runs. Only the validation split decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from edgekd.core.search import Search, short_schedule
from edgekd.core.sizing import Trial, choose, most_worthwhile
from edgekd.errors import InfeasibleBudgetError
from edgekd.nn.students import Student
from edgekd.pipeline.console import Progress
from edgekd.pipeline.stages import StageRunner, TrainedModel
from edgekd.records import Candidate, Training

ASKED_AT_ONCE = 2
"""Short runs between two looks at what all of them say."""

MOST_LOOKED_AT = 3
"""Candidates that are timed for each that may be trained, before the search makes do with those it has."""

Distil = Callable[[str, Candidate, Training], tuple[Student, TrainedModel]]
"""Trains a candidate under a stage's name and schedule. A weight-sharing network could answer this call."""

Judge = Callable[[Student, Candidate], tuple[bool, ...]]
"""Whether a student is right, for each validation input in order."""

NameOf = Callable[[str, str], str]
"""The stage's name for a prefix and a candidate's label; the same two always get the same name."""

Admit = Callable[[Sequence[Candidate]], tuple[Candidate, ...]]
"""Those of some candidates that may be trained: where there is a board, those that meet the limits on it."""


@dataclass(frozen=True)
class Selected:
    """The student that was chosen, fully trained."""

    candidate: Candidate
    student: Student
    record: TrainedModel


@dataclass(frozen=True)
class SearchSpace:
    """What a search chooses from.

    `dimensions`: allowed values by choice name; `sizes`: those that grow in everything together, smallest first, of
    which `grow` are tried at most; `candidates`: every one that meets the budget; `pool`: how many of them get a short
    run after the sizes.
    """

    dimensions: Mapping[str, Sequence[int]]
    sizes: Sequence[Candidate]
    candidates: Sequence[Candidate]
    grow: int
    pool: int
    seed: int


class Selection:
    """Trains candidates and chooses among them."""

    def __init__(
        self,
        distil: Distil,
        judge: Judge,
        name_of: NameOf,
        full: Training,
        progress: Progress,
        stages: StageRunner,
        admit: Admit = tuple,
    ) -> None:
        self.distil, self.judge, self.name_of, self.full = distil, judge, name_of, full
        self.progress, self.stages, self.admit = progress, stages, admit

    def ladder(self, sizes: Sequence[Candidate]) -> Selected:
        """Smallest first, growing until accuracy on the validation split stops rising by more than its noise."""
        trials, trained = self._grown("student", sizes, self.full)
        chosen = choose(trials)
        self._remark(trials[-1].name, trials[chosen.best].name, chosen.reason)
        return trained[chosen.best]

    def halving(self, space: SearchSpace) -> Selected:
        """Short runs of sizes in turn, then of candidates of that size; a whole run of the most promising one.

        Sizes grow until accuracy stops rising, or to the largest that the budget admits. Half of the pool then
        goes to candidates that fill that size in different ways; the others are what the short runs so far speak for.
        Three more short runs are worth more than a second finalist: see benchmarks/search/.

        Raises:
            InfeasibleBudgetError: no size was admitted.
        """
        short = short_schedule(self.full)
        sizes = self.admit(space.sizes[: space.grow])
        if not sizes:
            raise InfeasibleBudgetError(
                f"each of the {min(space.grow, len(space.sizes))} sizes that were predicted to fit misses the latency "
                "budget when measured on the board: `edgekd calibrate` the profile, or raise the limit"
            )
        trials, _ = self._grown("short", sizes, short)
        most = most_worthwhile([one.macs for one in (*sizes, *space.sizes[space.grow :])], trials)
        worthwhile = [one for one in space.candidates if most is None or one.macs <= most]
        if most is not None:
            self.progress.update(f"none larger than {most / 1e6:.3g} MMACs from here: {len(worthwhile)} candidates")
        tried = sizes[: len(trials)]
        search = Search(space.dimensions, [one for one in worthwhile if one not in tried], space.seed)
        # A size far below the others says only that larger is better, and that of all choices alike.
        middle, best_size = median(one.macs for one in worthwhile), choose(trials).best
        for index, (candidate, trial) in enumerate(zip(tried, trials, strict=True)):
            if candidate in worthwhile and (index == best_size or candidate.macs >= middle):
                search.tell(candidate, trial.accuracy)
        count, runs, looked_at = first_asked(space.pool), 0, 0
        while runs < space.pool and looked_at < MOST_LOOKED_AT * space.pool:
            asked = search.ask(min(count, space.pool - runs))
            if not asked:
                break
            looked_at += len(asked)
            for candidate in self.admit(asked):
                trial, _ = self._run("short", candidate, short)
                search.tell(candidate, trial.accuracy)
                runs += 1
            count = ASKED_AT_ONCE
        (best,) = search.best(1)
        trial, selected = self._run("student", best.candidate, self.full)
        self._remark(trial.name, trial.name, f"the most promising after {len(trials) + runs} short runs")
        return selected

    def _grown(self, prefix: str, sizes: Sequence[Candidate], schedule: Training) -> tuple[list[Trial], list[Selected]]:
        trials: list[Trial] = []
        trained: list[Selected] = []
        for candidate in sizes:
            trial, selected = self._run(prefix, candidate, schedule)
            trials.append(trial)
            trained.append(selected)
            if choose(trials).stop:
                break
        return trials, trained

    def _remark(self, stage: str, chosen: str, reason: str) -> None:
        self.progress.update(f"chosen: {chosen}: {reason}")
        self.stages.remark(stage, {"chosen": chosen, "reason": reason})

    def _run(self, prefix: str, candidate: Candidate, schedule: Training) -> tuple[Trial, Selected]:
        name = self.name_of(prefix, candidate.label)
        epochs = "" if schedule == self.full else f", {schedule.epochs} epochs"
        self.progress.stage(name, f"{candidate.label} ({candidate.parameters} parameters{epochs})")
        student, record = self.distil(name, candidate, schedule)
        return Trial(name, self.judge(student, candidate)), Selected(candidate, student, record)


def first_asked(pool: int) -> int:
    """How many of `pool` short runs go to candidates that fill the budget in different ways."""
    return (pool + 1) // 2
