"""`edgekd calibrate`: measure sampled students on a board and give its profile a latency model of its own."""

from __future__ import annotations

import datetime
import getpass
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from edgekd.core.architecture import operator_list
from edgekd.core.calibration import (
    HELD_OUT_EVERY,
    SampledStudent,
    fit_operator_model,
    sampled_students,
    trimmed_level,
    validate,
    with_error_table,
)
from edgekd.core.costs import latency_model_for
from edgekd.errors import BoardError, ConfigurationError
from edgekd.load import dump_toml, load_profile, shipped_profiles
from edgekd.pipeline.board_timing import BoardAddress, BoardTimer, timer_on, write_random_files
from edgekd.pipeline.console import Progress
from edgekd.records import (
    Calibration,
    DeviceProfile,
    LatencyModel,
    RuntimeName,
    SampleLevel,
    TimedRound,
)
from edgekd.store import hash_inputs, write_text

SCHEME: Literal["wi8_ai8"] = "wi8_ai8"
LEAST_STUDENTS = 12
LEAST_ROUNDS, MOST_ROUNDS = 3, 8
ROUND_SECONDS = 0.25
DOUBT_TO_REMEASURE, DOUBT_TO_EXCLUDE = 0.03, 0.10
"""Where the faster half of a student's rounds lies further apart than this, it is measured again, then left out."""
FURTHER_ROUNDS = 3


@dataclass(frozen=True)
class CalibrateOptions:
    """What the command line says of a calibration."""

    profile: str
    address: BoardAddress
    minutes: float = 10.0
    runtime: RuntimeName | None = None
    out: Path | None = None
    students: int = 45
    seed: int = 0
    overwrite: bool = False


def calibrate(options: CalibrateOptions, progress: Progress) -> Calibration:
    """Measure students with random weights on a board, fit, validate on a held-out third, write a new profile.

    What was measured is kept beside the new profile until that is written: an interrupted calibration goes on there.

    Raises:
        ConfigurationError: no such profile, a taken or shipped output file, or a board of another kind.
        BoardError: the board failed, or too few students could be measured.
    """
    profile = load_profile(options.profile)
    runtime = options.runtime or profile.operating_point.runtime
    out = output_path(profile, options)
    students = sampled_students(options.students, options.seed)
    started = time.monotonic()
    with timer_on(options.address, profile, runtime, progress) as timer:
        kept = KeptRounds.open(out, students, timer)
        measured = _Measuring(timer, students, kept, started + 60 * options.minutes, progress)
        measured.run(out.with_name(f".{out.stem}.students"), f"calibrate-{kept.key[:16]}")
        board, version = _board_name(timer), timer.environment.runtime_version
    levels = sample_levels(students, kept.rounds)
    progress.stage("fit", f"{sum(level.role != 'excluded' for level in levels)} students")
    about = _about(profile, runtime, f"{timer.environment.runtime_package} {version}", board, options, len(kept.rounds))
    model = fitted_model(students, levels, about)
    plot = out.with_suffix(".svg")
    calibration = Calibration(
        profile=profile.name,
        board=board,
        out=str(out),
        plot=str(plot),
        seconds=time.monotonic() - started,
        throttled_rounds=sum(one.throttled for one in kept.rounds),
        remeasured=len(measured.remeasured),
        excluded=sum(level.role == "excluded" for level in levels),
        samples=levels,
        latency_model=model,
        notes=tuple(_notes(timer, levels)),
    )
    _write(profile, calibration, out, plot)
    kept.remove()
    return calibration


def output_path(profile: DeviceProfile, options: CalibrateOptions) -> Path:
    """Where the new profile goes.

    Raises:
        ConfigurationError: a shipped profile's file, or one that is there.
    """
    out = options.out or Path(f"{profile.name.removesuffix('-calibrated')}-calibrated.toml")
    if out.suffix != ".toml":
        raise ConfigurationError(f"--out {out}: a profile's file ends in .toml")
    if any(out.resolve() == path.resolve() for path in shipped_profiles()):
        raise ConfigurationError(f"--out {out} is a profile that ships with edgekd: choose another file")
    if out.exists() and not options.overwrite:
        raise ConfigurationError(f"{out} exists: choose another --out, or give --overwrite")
    return out


class KeptRounds:
    """The rounds measured so far, one JSON line each, so that an interrupted calibration loses none."""

    def __init__(self, path: Path, key: str, rounds: list[TimedRound]) -> None:
        self.path, self.key, self.rounds = path, key, rounds

    @classmethod
    def open(cls, out: Path, students: Sequence[SampledStudent], timer: BoardTimer) -> KeptRounds:
        """The rounds of the same students on the same board and runtime; none where there are no such."""
        environment = timer.environment
        key = hash_inputs(
            students=[student.label for student in students],
            board=[timer.session.name, timer.facts.get("hostname"), timer.facts.get("device_tree_model")],
            runtime=[environment.runtime, environment.runtime_package, environment.runtime_version],
            threads=timer.threads,
        )
        path = out.with_name(f".{out.stem}.rounds.jsonl")
        rounds: list[TimedRound] = []
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            if lines and lines[0] == key:
                rounds = list(_whole_rounds(lines[1:]))
        kept = cls(path, key, rounds)
        write_text(path, "\n".join([key, *(one.model_dump_json() for one in rounds)]) + "\n")
        return kept

    def add(self, one: TimedRound) -> None:
        """Keep one more round."""
        self.rounds.append(one)
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


def _whole_rounds(lines: Iterable[str]) -> Iterable[TimedRound]:
    for line in lines:
        try:
            yield TimedRound.model_validate(json.loads(line))
        except (ValueError, ValidationError):
            # The last line of a calibration that was killed may be cut short.
            return


class _Measuring:
    """Rounds over all students in turn, so that a slow spell of the board falls on all alike."""

    def __init__(
        self,
        timer: BoardTimer,
        students: Sequence[SampledStudent],
        kept: KeptRounds,
        deadline: float,
        progress: Progress,
    ) -> None:
        self.timer, self.students, self.kept, self.deadline, self.progress = timer, students, kept, deadline, progress
        self.remeasured: set[int] = set()
        self._took: list[float] = []

    def run(self, folder: Path, key: str) -> None:
        """Measure all students in rounds, then those in doubt again, until the time is up."""
        suffix = "tflite" if self.timer.environment.runtime == "tflite" else "onnx"
        folder.mkdir(parents=True, exist_ok=True)
        self.progress.stage("students", f"{len(self.students)} with random weights, {SCHEME}, .{suffix}")
        wanted = {f"student-{i:02d}.{suffix}": partial(_write_student, one) for i, one in enumerate(self.students)}
        files = write_random_files(wanted, folder, self.progress)
        remote = self.timer.put({name: path for name, (path, _) in files.items()}, key)
        self._models = [(f"{remote}/{name}", sha256) for name, (_, sha256) in files.items()]
        self.progress.stage("measure", f"{len(self.students)} students, interleaved, {self.timer.threads} threads")
        count = len(self.students)
        for number in range(MOST_ROUNDS):
            if number == 1:
                count = self._affordable()
            if number >= LEAST_ROUNDS and time.monotonic() + self._round_seconds(count) > self.deadline:
                break
            for place, student in enumerate(self._order(count, number)):
                self._once(student, number, max(LEAST_ROUNDS - number, 1) * count - place)
        self._again(count)
        for path, _ in files.values():
            path.unlink(missing_ok=True)
        folder.rmdir()

    def _order(self, count: int, number: int) -> Sequence[int]:
        return range(count) if number % 2 == 0 else range(count - 1, -1, -1)

    def _once(self, student: int, number: int, left: int) -> None:
        if self.kept.has(student, number):
            return
        began = time.monotonic()
        timing = self.timer.time(*self._models[student], ROUND_SECONDS)
        self.kept.add(TimedRound(student=student, round=number, median_ms=timing.median_ms, throttled=timing.throttled))
        self._took.append(time.monotonic() - began)
        eta = max(self.deadline - time.monotonic(), self._round_seconds(1) * left, 0.0)
        self.progress.update(
            f"round {number + 1}, student {student + 1}: {timing.median_ms:.4g} ms; "
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
        """Further rounds of the students whose faster rounds lie apart, while there is time."""
        for number in range(MOST_ROUNDS, MOST_ROUNDS + FURTHER_ROUNDS):
            for student in range(count):
                if time.monotonic() > self.deadline:
                    return
                rounds = self.kept.of(student)
                if not rounds or trimmed_level(rounds)[1] > DOUBT_TO_REMEASURE:
                    self.remeasured.add(student)
                    self._once(student, number, 0)


def _write_student(student: SampledStudent, path: Path) -> None:
    from edgekd.convert.random_student import write_random_student
    from edgekd.nn.students import Student, example_input

    architecture = student.architecture()
    write_random_student(Student(architecture).eval(), example_input(architecture), path, "wi8_ai8")


def sample_levels(students: Sequence[SampledStudent], rounds: Sequence[TimedRound]) -> tuple[SampleLevel, ...]:
    """Each measured student's level and part in the calibration: every third is held out."""
    levels = []
    for index, student in enumerate(students):
        found = [one.median_ms for one in rounds if one.student == index and not one.throttled]
        if not found:
            continue
        level, doubt = trimmed_level(found)
        known = doubt if len(found) > 1 else None
        noisy = known is None or known > DOUBT_TO_EXCLUDE
        reason = "" if not noisy else "a single round" if known is None else f"rounds {100 * doubt:.0f} % apart"
        role = "excluded" if noisy else "held_out" if index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else "fitted"
        levels.append(
            SampleLevel.model_validate(
                {
                    "label": student.label,
                    "level_ms": level,
                    "doubt": known,
                    "rounds": len(found),
                    "role": role,
                    "reason": reason,
                }
            )
        )
    return tuple(levels)


def fitted_model(
    students: Sequence[SampledStudent], levels: Sequence[SampleLevel], about: LatencyModel
) -> LatencyModel:
    """The model of all students that count, with the error table of a fit to two thirds of them.

    Raises:
        BoardError: too few students could be measured well enough.
    """
    lists = {student.label: operator_list(student.architecture()) for student in students}
    fitted = [level for level in levels if level.role == "fitted"]
    held_out = [level for level in levels if level.role == "held_out"]
    if len(fitted) + len(held_out) < LEAST_STUDENTS or not held_out:
        raise BoardError(
            f"only {len(fitted) + len(held_out)} students could be measured well enough (of {len(levels)}); "
            f"{LEAST_STUDENTS} are needed. Stop what else runs on the board, cool it, or give more --minutes"
        )
    two_thirds = fit_operator_model(
        [lists[level.label] for level in fitted], [level.level_ms for level in fitted], about
    )
    table = validate(
        two_thirds,
        [level.label for level in held_out],
        [lists[level.label] for level in held_out],
        [level.level_ms for level in held_out],
    )
    used = [*fitted, *held_out]
    final = fit_operator_model([lists[level.label] for level in used], [level.level_ms for level in used], about)
    return with_error_table(final, table)


def _about(
    profile: DeviceProfile, runtime: RuntimeName, version: str, board: str, options: CalibrateOptions, timings: int
) -> LatencyModel:
    """The record's unfitted fields; the kinds that no student holds keep the base model's costs, scaled."""
    base = latency_model_for(profile, SCHEME, runtime)
    return LatencyModel(
        runtime=runtime,
        runtime_version=version,
        scheme=SCHEME,
        threads=profile.operating_point.threads,
        provenance="measured",
        overhead_ms=base.overhead_ms if base else 0.0,
        costs=base.costs if base else {},
        tile=base.tile if base else None,
        half_width=0.0,
        samples=0,
        measured_by=getpass.getuser(),
        measured_on=f"{board}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        source=(
            f"edgekd calibrate: {timings} timings of random-weight students on {board}; error table from a fit to two "
            f"thirds of them, coefficients from all (seed {options.seed})"
        ),
    )


def _board_name(timer: BoardTimer) -> str:
    kind = timer.facts.get("device_tree_model") or timer.facts.get("cpu") or timer.facts.get("machine")
    return f"{timer.session.name} ({kind})"


def _notes(timer: BoardTimer, levels: Sequence[SampleLevel]) -> list[str]:
    found = []
    load = timer.facts.get("load_average")
    if load and load[0] > 0.5:
        found.append(f"other work ran on the board: load average {load[0]:.2f} at the start")
    if any(level.role == "excluded" for level in levels):
        found.append(
            "students whose rounds stayed apart, or for whose further rounds there was no time, were left out of "
            "fit and error table"
        )
    return found


def _write(profile: DeviceProfile, calibration: Calibration, out: Path, plot: Path) -> None:
    """The plot first, the profile last: where the profile is, everything is."""
    from edgekd.report.calibration_plot import calibration_svg

    model = calibration.latency_model
    name = profile.name if profile.name.endswith("-calibrated") else f"{profile.name}-calibrated"
    others = tuple(
        one
        for one in profile.latency_models
        if not (
            one.runtime == model.runtime
            and one.scheme == model.scheme
            and one.threads in (None, model.threads)
            and one.provenance == "measured"
        )
    )
    update = {"name": name, "aliases": (), "latency_models": (model, *others)}
    calibrated = profile.model_copy(update=update)
    write_text(plot, calibration_svg(model, f"{name}: {model.runtime}, {model.scheme}"))
    write_text(out, dump_toml(calibrated))
