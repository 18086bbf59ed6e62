"""`edgekd deploy` and `edgekd measure`: onto the board, measure there, judge. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.core.spread import evenly
from edgekd.core.units import join_units
from edgekd.core.verdicts import MEASURED_ONLY, exit_code, judge
from edgekd.errors import EXIT_MET, ConfigurationError
from edgekd.load import load_profile, load_recipe
from edgekd.pipeline.boards.measuring import BoardOptions
from edgekd.pipeline.boards.units import MemoryMissedError, Subject, measured_units, require_inputs
from edgekd.pipeline.console import Progress
from edgekd.pipeline.fitting.reporting import measured_report, write
from edgekd.records import (
    INT8_SCHEMES,
    Accuracy,
    Artifact,
    Budget,
    DeviceProfile,
    Measurement,
    Record,
    Report,
    Scheme,
    Verdict,
)
from edgekd.records.base import MeasuredRuntime
from edgekd.store import RunDirectory, hash_file


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
        artifact = deployed_artifact(run, before, runtime, options.scheme)
        if artifact not in before.artifacts:
            before = before.model_copy(update={"artifacts": (*before.artifacts, artifact)})
        subject = Subject(run.path / artifact.path, run.test_inputs, run.path.name, runtime, artifact.scheme)
        try:
            units, reference = measured_units(subject, profile, budget, options, progress)
        except MemoryMissedError as error:
            progress.warn(str(error))
            missed = memory_missed(budget, before.accuracy, artifact.size_bytes, str(error), artifact.scheme)
            report = measured_report(before, budget, sources, profile.name, None, missed, command)
            write(run, report)
            return Deployed(run, report)
        accuracy = before.accuracy
        if runtime == "tensorrt":
            from edgekd.pipeline.boards.tensorrt import accuracy_deployed

            accuracy = accuracy_deployed(accuracy, reference.correct if reference else None)
        verdicts = _judged(budget, units, profile, accuracy, artifact.size_bytes, artifact.scheme)
        if runtime != "tensorrt":
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
    require_inputs(inputs)
    profile = load_profile(profile_name) if profile_name else None
    budget = profile.budget if profile else Budget()
    try:
        subject = file_subject(model, inputs, runtime, options.scheme)
        units, _ = measured_units(subject, profile, budget, options, progress)
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
    budget: Budget,
    units: Sequence[Measurement],
    profile: DeviceProfile,
    accuracy: Accuracy,
    size_bytes: int | None,
    scheme: Scheme = "wi8_ai8",
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
                    scheme=scheme,
                ),
            )
            for unit in units
        ]
    )


def memory_missed(
    budget: Budget, accuracy: Accuracy, file_size_bytes: int | None, reason: str, scheme: Scheme = "wi8_ai8"
) -> tuple[Verdict, ...]:
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
        scheme=scheme,
    )
    missed = {"outcome": "missed", "basis": "measured", "reason": f"it ran out of memory: {reason}"}
    return tuple(
        verdict.model_copy(update=missed) if verdict.constraint == "peak_memory_mib" else verdict
        for verdict in verdicts
    )


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


def deployed_artifact(run: RunDirectory, report: Report, runtime: MeasuredRuntime, scheme: Scheme | None) -> Artifact:
    """The file that a runtime is given: the int8 student, mixed or not; for TensorRT fp16 unless a scheme is asked for.

    Raises:
        ConfigurationError: the run has none, or a scheme was asked for that the runtime does not choose.
    """
    if runtime == "tensorrt":
        from edgekd.pipeline.boards.tensorrt import engine_artifact

        return engine_artifact(run, report, scheme or "fp16")
    if scheme is not None:
        raise ConfigurationError(f"--scheme {scheme} is for --runtime tensorrt; {runtime} is given the int8 student")
    for artifact in report.artifacts:
        if artifact.format == runtime and artifact.scheme in INT8_SCHEMES:
            return artifact
    raise ConfigurationError(f"the run has no int8 student for --runtime {runtime}")


def file_subject(model: Path, inputs: Path | None, runtime: MeasuredRuntime, scheme: Scheme | None) -> Subject:
    """A model file to measure, with its scheme where TensorRT has to be told it.

    Raises:
        ConfigurationError: a scheme is given that the runtime reads from the file, or TensorRT's cannot be read.
    """
    if runtime == "tensorrt":
        from edgekd.pipeline.boards.tensorrt import scheme_of

        scheme = scheme_of(model, scheme)
    elif scheme is not None:
        raise ConfigurationError(f"--scheme is for --runtime tensorrt; {runtime} reads it from the file")
    return Subject(model, inputs, f"measure-{hash_file(model)[:16]}", runtime, scheme, "--inputs")


def runtime_of(model: Path, wanted: MeasuredRuntime | None) -> MeasuredRuntime:
    """The runtime that a model file is for, by its suffix.

    Raises:
        ConfigurationError: no such file, another kind of file, or one that the wanted runtime does not run.
    """
    if not model.is_file():
        raise ConfigurationError(f"model file {model} does not exist")
    runtimes: dict[str, MeasuredRuntime] = {".tflite": "tflite", ".onnx": "onnx"}
    runtime = runtimes.get(model.suffix)
    if wanted == "tensorrt" and runtime == "onnx":
        return wanted
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
