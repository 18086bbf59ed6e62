"""Measures one model file on one board after another: what `deploy` and `measure` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.board.agent.inputs import stored_rows
from edgekd.board.agent.wire import AgentError
from edgekd.board.connection.open import open_session
from edgekd.board.container import within
from edgekd.board.lock import BoardLock
from edgekd.board.measuring.agent_client import read_facts
from edgekd.board.measuring.extra_passes import RawOutputs, host_outputs
from edgekd.board.measuring.facts import matches_profile
from edgekd.board.measuring.measure import BoardModel, measure
from edgekd.board.measuring.out_of_memory import OutOfMemoryError
from edgekd.board.measuring.tensorrt import COMPARED_INPUTS, EngineInputs, EngineRequest, write_inputs
from edgekd.board.provisioning.prepare import prepare, under_circumstances
from edgekd.core.evidence import disturbance
from edgekd.core.spread import evenly
from edgekd.core.verdicts import undecided
from edgekd.errors import ConfigurationError
from edgekd.pipeline.boards.measuring import BoardOptions, plan_for
from edgekd.pipeline.console import Progress
from edgekd.pipeline.fitting.reporting import utc_text
from edgekd.records import LATENCY_PERCENTILES, Budget, Contention, DeviceProfile, Measurement, Scheme
from edgekd.records.base import MeasuredRuntime
from edgekd.records.board import KnownBoard
from edgekd.store import hash_file
from edgekd.store.boards import remember_board

DEFAULT_THREADS = 1
"""Threads where neither a profile nor the command line says."""


class MemoryMissedError(OutOfMemoryError):
    """A board of the profile's kind could not give the model the memory it needs: the memory limit is missed."""


@dataclass(frozen=True)
class Subject:
    """What is measured: a model file, the stored inputs, and the runtime; `key` names its directory on boards.

    `inputs_from` says in messages whose inputs they are.
    """

    model: Path
    inputs: Path | None
    key: str
    runtime: MeasuredRuntime
    scheme: Scheme | None = None
    inputs_from: str = "stored inputs"


@dataclass(frozen=True)
class _Sent:
    """The files that go to a board, and how trtexec is to be fed of them: input, file names, labels."""

    files: Mapping[str, Path]
    fed: tuple[str, tuple[str, ...], tuple[int, ...] | None] | None = None


def require_inputs(inputs: Path | None) -> None:
    """Refuse a file of `--inputs` that holds no readable array `inputs`, before any board is bothered.

    Raises:
        ConfigurationError: no such file, no .npz, or no array of numbers (N, ...) named `inputs` in it.
    """
    if inputs is None:
        return
    if not inputs.is_file():
        raise ConfigurationError(f"--inputs {inputs} does not exist")
    try:
        stored_rows(inputs, "inputs")
    except AgentError as error:
        raise ConfigurationError(f"--inputs {error}: an .npz is needed, as numpy.savez(FILE, inputs=...)") from error


def measured_units(
    subject: Subject, profile: DeviceProfile | None, budget: Budget, options: BoardOptions, progress: Progress
) -> tuple[list[Measurement], RawOutputs | None]:
    """The measurement of every board, one after another, and this machine's outputs, had once to compare with.

    Raises:
        MemoryMissedError: a board of the profile's kind ended the model for want of memory.
        ConfigurationError: the options contradict each other, or the inputs do not fit the model.
        BuildError: the runtime refuses the file.
        BoardError: a board cannot be reached, refuses, or a command there failed.
    """
    threads = options.threads or (profile.operating_point.threads if profile else DEFAULT_THREADS)
    # What the command line asks for is checked before any board is bothered.
    plan_for(options.plan, subject.runtime, threads, options.measuring)
    reference = None
    if subject.inputs is not None:
        progress.stage("reference", "this machine's outputs, to compare the board's with")
        here = "onnx" if subject.runtime == "tensorrt" else subject.runtime
        try:
            reference = host_outputs(subject.model, hash_file(subject.model), subject.inputs, here, threads)
        except ConfigurationError as error:
            # This machine answers first, and speaks of itself as of a board: what is wrong is the file.
            said = str(error).removeprefix("local: ")
            raise ConfigurationError(f"{subject.inputs_from} {subject.inputs}: {said}") from error
        if reference is None and subject.runtime == "tensorrt":
            progress.warn("this machine has no onnxruntime: trtexec is fed random inputs, and no outputs are compared")
    with TemporaryDirectory(prefix="edgekd-") as folder:
        sent = _to_send(subject, reference, Path(folder))
        compared = reference.only(_compared(reference)) if sent.fed and reference else reference
        units = [_measured(subject, sent, profile, budget, each, compared, progress) for each in options.each()]
    return units, reference


def _to_send(subject: Subject, reference: RawOutputs | None, folder: Path) -> _Sent:
    files = {subject.model.name: subject.model}
    if subject.inputs is None:
        return _Sent(files)
    if subject.runtime != "tensorrt":
        return _Sent({**files, subject.inputs.name: subject.inputs})
    if reference is None or len(reference.inputs) != 1:
        return _Sent(files)
    rows, labels = write_inputs(subject.inputs, _compared(reference), reference.inputs[0], folder)
    return _Sent({**files, **rows}, (reference.inputs[0].name, tuple(rows), labels))


def _compared(reference: RawOutputs) -> list[int]:
    return evenly(reference.rows, COMPARED_INPUTS)


def _measured(
    subject: Subject,
    sent: _Sent,
    profile: DeviceProfile | None,
    budget: Budget,
    options: BoardOptions,
    reference: RawOutputs | None,
    progress: Progress,
) -> Measurement:
    threads = options.threads or (profile.operating_point.threads if profile else DEFAULT_THREADS)
    plan = plan_for(options.plan, subject.runtime, threads, options.measuring)
    progress.stage("connect", options.board)
    session = open_session(options.board, identity=options.identity, accept_new_host_key=options.accept_new_host_key)
    with (
        session,
        BoardLock(session, "edgekd deploy") as lock,
        within(session, plan.container, progress.update) as place,
    ):
        prepared = prepare(place, lock, subject.runtime, sent.files, subject.key, progress.stage, progress.update)
        folder = prepared.folder
        progress.stage("measure", f"{subject.runtime}, {threads} threads, plan {plan.name}")
        stored = subject.inputs.name if subject.inputs is not None else None
        try:
            measurement = measure(
                place,
                prepared.environment,
                BoardModel(f"{folder}/{subject.model.name}", hash_file(subject.model), subject.model.name),
                plan,
                f"{folder}/{stored}" if stored in sent.files else None,
                profile,
                engine=_engine_request(subject, sent, folder),
                reference=reference,
                on_progress=progress.update,
                undecided=_undecided(budget),
                disturbed=_disturbed(budget) if plan.background == "none" else None,
            )
        except OutOfMemoryError as error:
            if profile is None or prepared.emulated or budget.peak_memory_mib is None:
                raise
            facts = read_facts(place, prepared.environment.python)
            if not matches_profile(facts, session, profile)[0]:
                raise
            raise MemoryMissedError(str(error)) from error
    if not session.is_local:
        known = KnownBoard(
            board=options.board, description=measurement.board, last_used_utc=utc_text(), last_command="deploy"
        )
        remember_board(known)
    return under_circumstances(measurement, prepared)


def _engine_request(subject: Subject, sent: _Sent, folder: str) -> EngineRequest | None:
    if subject.runtime != "tensorrt":
        return None
    inputs = None
    if sent.fed is not None:
        name, files, labels = sent.fed
        inputs = EngineInputs(name, tuple(f"{folder}/{file}" for file in files), labels)
    return EngineRequest(subject.scheme or "fp32", inputs)


def _undecided(budget: Budget) -> Callable[[Sequence[Sequence[float]]], bool]:
    return lambda samples: undecided(budget, samples)


def _disturbed(budget: Budget) -> Callable[[Contention], bool]:
    """Whether what others took from a process forbids a verdict that the budget asks for."""
    timed = [name for name in budget.constraints() if name in LATENCY_PERCENTILES or name == "fps"]
    return lambda contention: any(disturbance(name, contention) for name in timed)
