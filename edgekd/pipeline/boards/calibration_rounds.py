"""The timings of a calibration: interleaved rounds over all students, kept as they come."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from edgekd.core.calibration import LEAST_STUDENTS, level_of
from edgekd.core.energy_model import hindrances
from edgekd.core.sampled_students import SampledStudent
from edgekd.pipeline.boards.timing import BoardTimer, EnergyReadings, write_random_files
from edgekd.pipeline.console import Progress
from edgekd.records import EnergyReading, TimedRound
from edgekd.store import hash_inputs, write_text

CalibratedScheme = Literal["wi8_ai8", "fp32"]
LEAST_ROUNDS, MOST_ROUNDS = 3, 8
ROUND_SECONDS = 0.25
DOUBT_TO_REMEASURE = 0.03
"""Where a student's fastest two rounds lie further apart than this, it is measured again."""

FURTHER_ROUNDS = 3
ENERGY_STUDENTS = 8


class KeptRounds:
    """The rounds measured so far, one JSON line each, so that an interrupted calibration loses none."""

    def __init__(self, path: Path, key: str, rounds: list[TimedRound], energy: list[EnergyReading]) -> None:
        self.path, self.key, self.rounds, self.energy = path, key, rounds, energy

    @classmethod
    def open(
        cls, out: Path, students: Sequence[SampledStudent], timer: BoardTimer, scheme: CalibratedScheme
    ) -> KeptRounds:
        """The rounds of the same students and scheme on the same board and runtime; none where there are no such."""
        environment = timer.environment
        key = hash_inputs(
            students=[student.label for student in students],
            board=[timer.session.name, timer.facts.get("hostname"), timer.facts.get("device_tree_model")],
            runtime=[environment.runtime, environment.runtime_package, environment.runtime_version],
            threads=timer.threads,
            scheme=scheme,
        )
        path = out.with_name(f".{out.stem}.rounds.jsonl")
        found: list[TimedRound | EnergyReading] = []
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            if lines and lines[0] == key:
                found = list(_whole_lines(lines[1:]))
        rounds = [one for one in found if isinstance(one, TimedRound)]
        kept = cls(path, key, rounds, [one for one in found if isinstance(one, EnergyReading)])
        write_text(path, "\n".join([key, *(one.model_dump_json() for one in found)]) + "\n")
        return kept

    def add(self, one: TimedRound | EnergyReading) -> None:
        """Keep one more round, or a student's energy."""
        if isinstance(one, TimedRound):
            self.rounds.append(one)
        else:
            self.energy.append(one)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(one.model_dump_json() + "\n")

    def of(self, student: int) -> list[float]:
        """The medians of a student's rounds that count, in ms."""
        return [one.median_ms for one in self.rounds if one.student == student and not one.throttled]

    def has(self, student: int, number: int) -> bool:
        """Whether that round was measured."""
        return any(one.student == student and one.round == number for one in self.rounds)

    def remove(self) -> None:
        """Forget them: the profile is written."""
        self.path.unlink(missing_ok=True)


def _whole_lines(lines: Iterable[str]) -> Iterable[TimedRound | EnergyReading]:
    for line in lines:
        try:
            found = json.loads(line)
            yield (EnergyReading if "energy_mj" in found else TimedRound).model_validate(found)
        except (ValueError, TypeError, ValidationError):
            # The last line of a calibration that was killed may be cut short.
            return


class Measuring:
    """Rounds over all students in turn, so that a slow spell of the board falls on all alike.

    Args:
        timer: the board.
        students: whom to measure, those that are to differ most first.
        scheme: the number types of their files.
        kept: where rounds are kept, with those of an earlier run.
        deadline: when to end, in seconds of `time.monotonic`.
        progress: told what goes on.
    """

    def __init__(
        self,
        timer: BoardTimer,
        students: Sequence[SampledStudent],
        scheme: CalibratedScheme,
        kept: KeptRounds,
        deadline: float,
        progress: Progress,
    ) -> None:
        self.timer, self.students, self.scheme = timer, students, scheme
        self.kept, self.deadline, self.progress = kept, deadline, progress
        self.remeasured: set[int] = set()
        self.models: list[tuple[str, str]] = []
        """Each student's path on the board and sha256."""
        self._took: list[float] = []

    def run(self, folder: Path, key: str) -> None:
        """Measure all students in rounds, then those in doubt again, until the time is up."""
        suffix = "tflite" if self.timer.environment.runtime == "tflite" else "onnx"
        folder.mkdir(parents=True, exist_ok=True)
        self.progress.stage("students", f"{len(self.students)} with random weights, {self.scheme}, .{suffix}")
        wanted = {
            f"student-{index:02d}.{suffix}": partial(write_student, student, self.scheme)
            for index, student in enumerate(self.students)
        }
        files = write_random_files(wanted, folder, self.progress)
        remote = self.timer.put({name: path for name, (path, _) in files.items()}, key)
        self.models = [(f"{remote}/{name}", sha256) for name, (_, sha256) in files.items()]
        self.progress.stage("measure", f"{len(self.students)} students, interleaved, {self.timer.threads} threads")
        self._rounds()
        for path, _ in files.values():
            path.unlink(missing_ok=True)
        folder.rmdir()

    def _rounds(self) -> None:
        count = len(self.students)
        for number in range(MOST_ROUNDS):
            if number == 1:
                count = self._affordable()
            if number >= LEAST_ROUNDS and time.monotonic() + self._round_seconds(count) > self.deadline:
                break
            for place, student in enumerate(self._order(count, number)):
                self._once(student, number, max(LEAST_ROUNDS - number, 1) * count - place)
        self._again(count)

    def _order(self, count: int, number: int) -> Sequence[int]:
        return range(count) if number % 2 == 0 else range(count - 1, -1, -1)

    def _once(self, student: int, number: int, left: int) -> None:
        if self.kept.has(student, number):
            return
        began = time.monotonic()
        timing = self.timer.time(*self.models[student], ROUND_SECONDS)
        self.kept.add(
            TimedRound(
                student=student,
                round=number,
                median_ms=timing.quiet_ms,
                tails_ms=timing.tails_ms,
                throttled=timing.throttled,
            )
        )
        self._took.append(time.monotonic() - began)
        eta = max(self.deadline - time.monotonic(), self._round_seconds(1) * left, 0.0)
        self.progress.update(
            f"round {number + 1}, student {student + 1}: {timing.quiet_ms:.4g} ms; "
            f"{len(self.kept.rounds)} timings, done in {eta / 60:.1f} min at most"
        )

    def _round_seconds(self, count: int) -> float:
        return count * (sum(self._took) / len(self._took) if self._took else 1.0)

    def _affordable(self) -> int:
        """How many students the time allows in the least number of rounds; the first ones are the most apart."""
        each = self._round_seconds(1)
        left = self.deadline - time.monotonic()
        count = int(left / each / (LEAST_ROUNDS - 1)) if self._took else len(self.students)
        return max(min(count, len(self.students)), min(LEAST_STUDENTS, len(self.students)))

    def _again(self, count: int) -> None:
        """Further rounds of the students whose fastest rounds lie apart, while there is time."""
        for number in range(MOST_ROUNDS, MOST_ROUNDS + FURTHER_ROUNDS):
            for student in range(count):
                if time.monotonic() > self.deadline:
                    return
                rounds = self.kept.of(student)
                if not rounds or level_of(rounds)[1] > DOUBT_TO_REMEASURE:
                    self.remeasured.add(student)
                    self._once(student, number, 0)


def read_energy(measuring: Measuring, kept: KeptRounds, how: EnergyReadings, progress: Progress) -> None:
    """Read the power of the first students at work, those that differ most; what was read before stays.

    Raises:
        BoardError: the meter asked for is not there or fails.
    """
    count = min(ENERGY_STUDENTS, len(measuring.models))
    progress.stage(
        "energy", f"{count} students, {how.meter}: about {count * (2 * how.window_seconds + 5) / 60:.0f} min"
    )
    read = {one.student for one in kept.energy}
    for student in range(count):
        if student in read:
            continue
        power = measuring.timer.energy(*measuring.models[student], how, progress.update)
        if power is None:
            progress.warn("no power meter was found on the board: energy was not measured")
            return
        kept.add(
            EnergyReading(
                student=student,
                energy_mj=power.energy_mj,
                mean_w=power.mean_w,
                meter=power.meter,
                rail=power.rail,
                grade=power.grade,
                problems=hindrances(power.problems),
            )
        )


def write_student(student: SampledStudent, scheme: CalibratedScheme, path: Path) -> None:
    """Write a sampled student with random weights in the format of the path's suffix."""
    from edgekd.convert.random_student import write_random_student
    from edgekd.nn.students import Student, example_input

    architecture = student.architecture()
    write_random_student(Student(architecture).eval(), example_input(architecture), path, scheme)
