"""`edgekd deploy` and `edgekd measure`: onto the board, measure there, judge. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekd.board.agent_client import read_facts
from edgekd.board.extra_passes import RawOutputs, host_outputs
from edgekd.board.facts import matches_profile
from edgekd.board.lock import BoardLock
from edgekd.board.measure import BoardModel, measure
from edgekd.board.open import open_session
from edgekd.board.out_of_memory import OutOfMemoryError
from edgekd.board.prepare import prepare, under_circumstances
from edgekd.core.spread import evenly
from edgekd.core.units import join_units
from edgekd.core.verdicts import MEASURED_ONLY, exit_code, judge, undecided
from edgekd.errors import EXIT_MET, ConfigurationError
from edgekd.load import load_profile, load_recipe
from edgekd.pipeline.console import Progress
from edgekd.pipeline.measuring import MeasuringOptions, plan_for
from edgekd.pipeline.reporting import deployed_size, measured_report, utc_text, write
from edgekd.records import (
    Accuracy,
    Artifact,
    Budget,
    DeviceProfile,
    Measurement,
    PlanName,
    Record,
    Report,
    RuntimeName,
    Verdict,
)
from edgekd.records.board import KnownBoard
from edgekd.store import RunDirectory, hash_file
from edgekd.store.boards import remember_board

DEFAULT_THREADS = 1
"""Threads where neither a profile nor the command line says."""


@dataclass(frozen=True)
class BoardOptions:
    """What the command line says of a board and of measuring on it; None takes the profile's.

    `more_boards` are further units of the same kind, measured one after another.
    """

    board: str
    runtime: RuntimeName | None
    threads: int | None
    plan: PlanName
    identity: Path | None
    accept_new_host_key: bool
    measuring: MeasuringOptions = MeasuringOptions()
    more_boards: tuple[str, ...] = ()

    def each(self) -> list[BoardOptions]:
        """The same for every board by itself."""
        return [replace(self, board=board, more_boards=()) for board in (self.board, *self.more_boards)]


class MemoryMissedError(OutOfMemoryError):
    """A board of the profile's kind could not give the model the memory it needs: the memory limit is missed."""


@dataclass(frozen=True)
class Deployed:
    """What a deployment ends with."""

    run: RunDirectory
    report: Report


class MeasuredFile(Record):
    """A model file's measurement, and the verdicts of a profile's budget where one was named."""

    model: str
    profile: str | None
    measurement: Measurement | None
    verdicts: tuple[Verdict, ...] = ()
    exit_code: int
    units: tuple[Measurement, ...] = ()


def deploy(
    run_path: Path, options: BoardOptions, profile_name: str | None, *, command: str, progress: Progress
) -> Deployed:
    """Put a run's student on a board, measure it and judge the budget on that measurement alone.

    Raises:
        ConfigurationError: no such run, profile or file.
        BuildError: an artifact is not the file that was built.
        BoardError: the board cannot be reached, refuses, or a command there failed.
    """
    run = RunDirectory.open(run_path)
    with run.lock("edgekd deploy"):
        before = run.read_report()
        run.verify_artifacts(before)
        profile = load_profile(profile_name or load_recipe(run.recipe_toml).profile or before.profile)
        budget, sources = judged_budget(before, profile)
        runtime = options.runtime or profile.operating_point.runtime
        artifact = int8_artifact(before.artifacts, runtime)
        try:
            units = _measured_units(
                run.path / artifact.path, run.test_inputs, run.path.name, profile, budget, options, runtime, progress
            )
        except MemoryMissedError as error:
            progress.warn(str(error))
            missed = memory_missed(budget, before.accuracy, deployed_size(before.artifacts, runtime), str(error))
            report = measured_report(before, budget, sources, profile.name, None, missed, command)
            write(run, report)
            return Deployed(run, report)
        verdicts = _judged(budget, units, profile, before.accuracy, deployed_size(before.artifacts, runtime))
        units = [
            unit.model_copy(update={"notes": (*unit.notes, *disagreement(before.accuracy, unit))}) for unit in units
        ]
        report = measured_report(before, budget, sources, profile.name, units[0], verdicts, command)
        report = report.model_copy(update={"units": tuple(units) if len(units) > 1 else ()})
        write(run, report)
    return Deployed(run, report)


def measure_file(
    model: Path, options: BoardOptions, profile_name: str | None, inputs: Path | None, *, progress: Progress
) -> MeasuredFile:
    """Measure any .tflite or .onnx file on a board; judge a profile's default costs where one is named.

    Raises:
        ConfigurationError: no such file, inputs or profile, or a file of another kind.
        BuildError: the runtime refuses the file.
        BoardError: the board cannot be reached, refuses, or a command there failed.
    """
    runtime = runtime_of(model, options.runtime)
    if inputs is not None and not inputs.is_file():
        raise ConfigurationError(f"--inputs {inputs} does not exist")
    profile = load_profile(profile_name) if profile_name else None
    budget = profile.budget if profile else Budget()
    key = f"measure-{hash_file(model)[:16]}"
    try:
        units = _measured_units(model, inputs, key, profile, budget, options, runtime, progress)
    except MemoryMissedError as error:
        missed = memory_missed(budget, Accuracy(), model.stat().st_size, str(error))
        return MeasuredFile(
            model=str(model),
            profile=profile.name if profile else None,
            measurement=None,
            verdicts=missed,
            exit_code=exit_code(missed),
        )
    several = tuple(units) if len(units) > 1 else ()
    if profile is None:
        return MeasuredFile(model=str(model), profile=None, measurement=units[0], units=several, exit_code=EXIT_MET)
    verdicts = _judged(budget, units, profile, Accuracy(), model.stat().st_size)
    return MeasuredFile(
        model=str(model),
        profile=profile.name,
        measurement=units[0],
        units=several,
        verdicts=verdicts,
        exit_code=exit_code(verdicts),
    )


def _judged(
    budget: Budget, units: Sequence[Measurement], profile: DeviceProfile, accuracy: Accuracy, size_bytes: int | None
) -> tuple[Verdict, ...]:
    """Verdicts on the measurements of all units alone."""
    return join_units(
        [
            (
                unit.board,
                judge(
                    budget,
                    measurement=unit,
                    predicted={},
                    accuracy=accuracy,
                    file_size_bytes=size_bytes,
                    profile_matches=unit.matches_profile == profile.name,
                    basis_allowed=MEASURED_ONLY,
                ),
            )
            for unit in units
        ]
    )


def _measured_units(
    model: Path,
    inputs: Path | None,
    key: str,
    profile: DeviceProfile | None,
    budget: Budget,
    options: BoardOptions,
    runtime: RuntimeName,
    progress: Progress,
) -> list[Measurement]:
    """The measurement of every board, one after another; this machine's outputs are had once, to compare with."""
    threads = options.threads or (profile.operating_point.threads if profile else DEFAULT_THREADS)
    # What the command line asks for is checked before any board is bothered.
    plan_for(options.plan, runtime, threads, options.measuring)
    reference = None
    if inputs is not None:
        progress.stage("reference", "this machine's outputs, to compare the board's with")
        reference = host_outputs(model, hash_file(model), inputs, runtime, threads)
    return [
        _measured(model, inputs, key, profile, budget, each, runtime, reference, progress) for each in options.each()
    ]


def _measured(
    model: Path,
    inputs: Path | None,
    key: str,
    profile: DeviceProfile | None,
    budget: Budget,
    options: BoardOptions,
    runtime: RuntimeName,
    reference: RawOutputs | None,
    progress: Progress,
) -> Measurement:
    threads = options.threads or (profile.operating_point.threads if profile else DEFAULT_THREADS)
    plan = plan_for(options.plan, runtime, threads, options.measuring)
    progress.stage("connect", options.board)
    session = open_session(options.board, identity=options.identity, accept_new_host_key=options.accept_new_host_key)
    with session, BoardLock(session, "edgekd deploy") as lock:
        files = {model.name: model, **({inputs.name: inputs} if inputs is not None else {})}
        prepared = prepare(session, lock, runtime, files, key, progress.stage, progress.update)
        folder = prepared.folder
        progress.stage("measure", f"{runtime}, {threads} threads, plan {plan.name}")
        try:
            measurement = measure(
                session,
                prepared.environment,
                BoardModel(f"{folder}/{model.name}", hash_file(model), model.name),
                plan,
                f"{folder}/{inputs.name}" if inputs is not None else None,
                profile,
                reference=reference,
                on_progress=progress.update,
                undecided=_undecided(budget),
            )
        except OutOfMemoryError as error:
            if profile is None or prepared.emulated or budget.peak_memory_mib is None:
                raise
            facts = read_facts(session, prepared.environment.python)
            if not matches_profile(facts, session, profile)[0]:
                raise
            raise MemoryMissedError(str(error)) from error
    if not session.is_local:
        known = KnownBoard(
            board=options.board, description=measurement.board, last_used_utc=utc_text(), last_command="deploy"
        )
        remember_board(known)
    return under_circumstances(measurement, prepared)


def memory_missed(budget: Budget, accuracy: Accuracy, file_size_bytes: int | None, reason: str) -> tuple[Verdict, ...]:
    """The verdicts where the board ended the model's process for want of memory: that limit is missed.

    By how much nobody knows, since the process never had what it asked for; what else only a board can show was not
    measured.
    """
    verdicts = judge(
        budget,
        measurement=None,
        predicted={},
        accuracy=accuracy,
        file_size_bytes=file_size_bytes,
        basis_allowed=MEASURED_ONLY,
    )
    missed = {"outcome": "missed", "basis": "measured", "reason": f"it ran out of memory: {reason}"}
    return tuple(
        verdict.model_copy(update=missed) if verdict.constraint == "peak_memory_mib" else verdict
        for verdict in verdicts
    )


def _undecided(budget: Budget) -> Callable[[Sequence[Sequence[float]]], bool]:
    return lambda samples: undecided(budget, samples)


def judged_budget(before: Report, profile: DeviceProfile) -> tuple[Budget, dict[str, str]]:
    """The budget in force on a profile's board: its defaults, under the limits the user gave for the run."""
    own = {
        name: limit
        for name, limit in before.budget.constraints().items()
        if not before.budget_source.get(name, "").startswith("profile")
    }
    budget = profile.budget.overridden_by(Budget.model_validate({**own, "mode": before.budget.mode}))
    sources = {
        name: before.budget_source[name] if name in own else f"profile {profile.name}" for name in budget.constraints()
    }
    return budget, sources


def int8_artifact(artifacts: Sequence[Artifact], runtime: RuntimeName) -> Artifact:
    """The int8 student's file for a runtime.

    Raises:
        ConfigurationError: the run has none.
    """
    for artifact in artifacts:
        if artifact.format == runtime and artifact.scheme == "wi8_ai8":
            return artifact
    raise ConfigurationError(f"the run has no int8 student for --runtime {runtime}")


def runtime_of(model: Path, wanted: RuntimeName | None) -> RuntimeName:
    """The runtime that a model file is for, by its suffix.

    Raises:
        ConfigurationError: no such file, another kind of file, or one that the wanted runtime does not run.
    """
    if not model.is_file():
        raise ConfigurationError(f"model file {model} does not exist")
    runtimes: dict[str, RuntimeName] = {".tflite": "tflite", ".onnx": "onnx"}
    runtime = runtimes.get(model.suffix)
    if runtime is None:
        raise ConfigurationError(f"{model}: edgekd measures .tflite and .onnx files, not {model.suffix or 'this'}")
    if wanted is not None and wanted != runtime:
        raise ConfigurationError(f"{model} is not a file that --runtime {wanted} runs")
    return runtime


def disagreement(accuracy: Accuracy, measurement: Measurement) -> list[str]:
    """A note where the board answered otherwise than the host over the same test inputs."""
    if not measurement.correct or not accuracy.student_int8_correct:
        return []
    rows = evenly(accuracy.inputs, len(measurement.correct))
    host = [accuracy.student_int8_correct[row] for row in rows]
    differing = sum(ours != theirs for ours, theirs in zip(host, measurement.correct, strict=True))
    if not differing:
        return []
    return [f"{differing} of {len(host)} test inputs are right on one of host and board and wrong on the other"]
