"""Measures one model file on one board, by fresh processes of the agent."""

from __future__ import annotations

import json
import logging
import math
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgekd.board.agent_archive import agent_sha256, put_agent
from edgekd.board.agent_lines import (
    AccuracyLine,
    AgentLine,
    ColdStartLine,
    EndLine,
    ErrorLine,
    FactsLine,
    LoadedLine,
    MemoryLine,
    PredictionsLine,
    ProgressLine,
    RawState,
    SamplesLine,
    StateLine,
    WarmLine,
    parse_line,
)
from edgekd.board.facts import matches_profile, parse_facts, throttle_sample
from edgekd.board.provision import RuntimeEnvironment
from edgekd.board.session import Session, signal_name
from edgekd.core.board_output import parse_process_memory, printable
from edgekd.core.statistics import KEPT_SAMPLES, percentile
from edgekd.errors import BoardError, BuildError, ConfigurationError
from edgekd.records import DeviceProfile, Measurement, MeasurementPlan, ThrottleSample

logger = logging.getLogger(__name__)

RANDOM_SEED = 0
IDLE_TIMEOUT_S = 25.0
START_ALLOWANCE_S = 120.0
ACCURACY_TIMEOUT_S = 3600.0
SYSFS_VARIABLE = "EDGEKD_SYSFS"

Progress = Callable[[str], None]
Undecided = Callable[[Sequence[Sequence[float]]], bool]
Job = Literal["facts", "latency", "memory", "accuracy"]


@dataclass(frozen=True, slots=True)
class BoardModel:
    """A model file on the board: its path there, the hash it must have, and its name here."""

    remote: str
    sha256: str
    name: str


@dataclass(slots=True)
class _Timed:
    """What the timed processes have given so far, in order."""

    stride: int = 0
    starts_ns: list[int] = field(default_factory=list)
    durations_ns: list[int] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    states: list[RawState] = field(default_factory=list)
    cold_starts: list[ColdStartLine] = field(default_factory=list)
    warm: WarmLine | None = None
    loaded: LoadedLine | None = None
    runs: int = 0
    timed_ns: int = 0

    def by_process(self) -> list[list[float]]:
        """Samples in ms, grouped by process."""
        groups: dict[int, list[float]] = {}
        for process, duration in zip(self.processes, self.durations_ns, strict=True):
            groups.setdefault(process, []).append(duration / 1e6)
        return list(groups.values())


class _Agent:
    """Starts the agent for one job at a time and hands over its lines."""

    def __init__(self, session: Session, python: str, site: str | None) -> None:
        self.session = session
        site_arguments = ["--site", site] if site else []
        self._command = [python, "-I", put_agent(session), *site_arguments]

    def do(self, job: Job, on_line: Callable[[AgentLine], None], *, timeout_s: float, **details: Any) -> None:
        """Run one job in a fresh process.

        Raises:
            BuildError: the model file there is not the one that was built.
            BoardError: the agent could not do it, died, fell silent, or talked nonsense.
        """
        ended = False
        failure: ErrorLine | None = None

        def take(text: str) -> None:
            nonlocal ended, failure
            line = parse_line(text, self.session.name)
            if isinstance(line, ErrorLine):
                failure = line
            elif isinstance(line, EndLine):
                ended = True
            else:
                on_line(line)

        request = {"job": job, "deadline_s": timeout_s, "sysfs": os.environ.get(SYSFS_VARIABLE), **details}
        result = self.session.stream(
            self._command,
            stdin=(json.dumps(request) + "\n").encode(),
            on_line=take,
            timeout_s=timeout_s + IDLE_TIMEOUT_S,
            idle_timeout_s=IDLE_TIMEOUT_S,
        )
        if failure is not None:
            raise _job_failure(self.session, failure)
        if not ended:
            raise _death(self.session, job, result.exit_code, result.signal, result.stderr)


def _job_failure(session: Session, line: ErrorLine) -> BoardError | BuildError | ConfigurationError:
    message = f"{session.name}: {printable(line.message)}"
    if line.code == "model_hash":
        return BuildError(f"{message}: the file there is not the one that was built; deploy it again")
    if line.code == "model":
        return BuildError(message)
    if line.code == "inputs":
        return ConfigurationError(message)
    return BoardError(message)


def _death(session: Session, job: Job, exit_code: int | None, number: int | None, stderr: str) -> BoardError:
    said = printable(stderr.strip()[-600:], 600)
    if number is None:
        return BoardError(f"{session.name}: the agent's {job} pass ended with exit code {exit_code}: {said}")
    hints = {
        "SIGKILL": "the board probably ran out of memory: `dmesg | grep -i oom` there tells",
        "SIGILL": "the runtime uses instructions that this CPU lacks",
        "SIGALRM": "it did not end by its deadline",
    }
    name = signal_name(number)
    hint = hints.get(name, "the runtime crashed on this model" if name in ("SIGSEGV", "SIGABRT", "SIGBUS") else "")
    return BoardError(
        f"{session.name}: the agent was killed by {name} in its {job} pass{f': {hint}' if hint else ''}"
        + (f" ({said})" if said else "")
    )


def read_facts(session: Session, python: str) -> dict[str, Any]:
    """What the board is, and its state now.

    Raises:
        BoardError: the agent cannot run there.
    """
    return parse_facts(_facts(_Agent(session, python, None)))


def _facts(agent: _Agent) -> FactsLine:
    found: list[FactsLine] = []

    def take(line: AgentLine) -> None:
        if isinstance(line, FactsLine):
            found.append(line)

    agent.do("facts", take, timeout_s=60.0)
    if not found:
        raise BoardError(f"{agent.session.name}: the agent there reported no facts")
    return found[-1]


def measure(
    session: Session,
    environment: RuntimeEnvironment,
    model: BoardModel,
    plan: MeasurementPlan,
    inputs: str | None = None,
    profile: DeviceProfile | None = None,
    *,
    on_progress: Progress | None = None,
    undecided: Undecided | None = None,
) -> Measurement:
    """Measure latency, memory and, over stored inputs, accuracy of a deployed model.

    The timed pass runs in `plan.processes` fresh processes, then in more while `undecided` says so and the plan's
    `max_seconds` are not reached. Memory and accuracy have passes of their own.

    Args:
        session: to the board.
        environment: what `provision` gave; its runtime must be the plan's.
        model: the file there.
        plan: how to measure.
        inputs: the board's path of an .npz with `inputs` (N, C, H, W) float32 and, for the accuracy, `labels` (N,);
            None feeds random inputs drawn from the model's own signature.
        profile: the kind the board may be of.
        on_progress: told in words what goes on.
        undecided: given the samples so far in ms, grouped by process, whether a verdict still needs more.

    Raises:
        BoardError: the board failed, or the link.
        BuildError: the model is not the one that was built, or the runtime does not load it.
        ConfigurationError: the inputs do not fit the model, or the plan asks for another runtime.
    """
    if environment.runtime != plan.runtime:
        raise ConfigurationError(f"the plan is for {plan.runtime}, but {environment.runtime} was provisioned")
    say = on_progress or (lambda message: None)
    agent = _Agent(session, environment.python, environment.site)
    before = _facts(agent)
    facts_before = parse_facts(before)
    matched, reason = matches_profile(facts_before, session, profile) if profile else (False, "no profile was given")
    common = {
        "runtime": plan.runtime,
        "model": model.remote,
        "model_sha256": model.sha256,
        "threads": plan.threads,
        "inputs": inputs,
        "seed": RANDOM_SEED,
    }
    say("measuring memory")
    memory = _memory(agent, common)
    accuracy = _accuracy(agent, common, say) if inputs is not None else None
    timed = _latency(agent, common, plan, undecided, say)
    after = _facts(agent)
    assert timed.warm is not None and timed.loaded is not None
    origin_ns = timed.starts_ns[0]
    states = tuple(throttle_sample(state, before.state, (state.at_ns - origin_ns) / 1e9) for state in timed.states)
    samples_ms = tuple(duration / 1e6 for duration in timed.durations_ns)
    p50, p90, p99 = (percentile(samples_ms, percent) for percent in (50, 90, 99))
    cold = [(line.load_ns + line.first_invoke_ns) / 1e6 for line in timed.cold_starts]
    return Measurement(
        board=_board_name(session, facts_before),
        matches_profile=profile.name if profile and matched else None,
        mismatch_reason=reason,
        runtime=plan.runtime,
        runtime_version=environment.runtime_version,
        provider=printable(timed.loaded.provider, 100),
        threads=plan.threads,
        plan=plan,
        model_sha256=model.sha256,
        model_path=model.name,
        samples_ms=samples_ms,
        sample_times_s=tuple((start - origin_ns) / 1e9 for start in timed.starts_ns),
        sample_processes=tuple(timed.processes),
        sample_stride=timed.stride,
        runs=timed.runs,
        latency_p50_ms=p50,
        latency_p90_ms=p90,
        latency_p99_ms=p99,
        peak_rss_bytes=memory[0],
        peak_memory_bytes=memory[1],
        cold_start_ms=statistics.median(cold) if cold else None,
        accuracy=accuracy.share if accuracy else None,
        accuracy_inputs=accuracy.inputs if accuracy else 0,
        correct=accuracy.correct if accuracy else None,
        states=states,
        throttled=_any_throttled(states),
        facts={
            "before": facts_before,
            "after": parse_facts(after),
            "method": _method(session, environment, timed, accuracy),
        },
    )


def _board_name(session: Session, facts: dict[str, Any]) -> str:
    """What the board is called in reports: its model where it tells one, and how it was reached."""
    kind = facts["device_tree_model"] or facts["cpu"] or facts["machine"]
    return f"{session.name} ({kind})"


def _method(
    session: Session, environment: RuntimeEnvironment, timed: _Timed, accuracy: _Accuracy | None
) -> dict[str, Any]:
    """How the figures came about, for whoever doubts or repeats them."""
    assert timed.warm is not None and timed.loaded is not None
    return {
        "agent_sha256": agent_sha256(),
        "python": environment.python,
        "bundle": environment.site,
        "runtime_package": environment.runtime_package,
        "runtime_settings": timed.loaded.settings,
        "model_inputs": [line.model_dump(mode="json") for line in timed.loaded.inputs],
        "inputs_from": printable(timed.warm.inputs_from, 100),
        "inputs_cycled": timed.warm.inputs,
        "clock": "time.perf_counter_ns (CLOCK_MONOTONIC)",
        "timed_part": "invoke only: inputs are laid out, quantized and handed over before",
        "timed_seconds": timed.timed_ns / 1e9,
        "untimed_runs_after_each_pause": 1,
        "processes": len(set(timed.processes)),
        "garbage_collector": "off in the timed pass",
        "cold_start_parts_ms": [
            {"import": line.import_ns / 1e6, "load": line.load_ns / 1e6, "first_invoke": line.first_invoke_ns / 1e6}
            for line in timed.cold_starts
        ],
        "outputs_sha256": accuracy.outputs_sha256 if accuracy else None,
        "sysfs_root": os.environ.get(SYSFS_VARIABLE) or "/sys",
    }


def _any_throttled(states: Sequence[ThrottleSample]) -> bool | None:
    told = [state.throttled for state in states if state.throttled is not None]
    return any(told) if told else None


def _memory(agent: _Agent, common: dict[str, Any]) -> tuple[int, int]:
    """Peak resident memory of a fresh process, whole and less what the runtime's import took, in bytes."""
    found: list[MemoryLine] = []

    def take(line: AgentLine) -> None:
        if isinstance(line, MemoryLine):
            found.append(line)

    agent.do("memory", take, timeout_s=START_ALLOWANCE_S, **common)
    imported = parse_process_memory(found[-1].after_import) if found else None
    ended = parse_process_memory(found[-1].at_end) if found else None
    if imported is None or ended is None:
        raise BoardError(
            f"{agent.session.name}: its kernel does not tell a process's memory (VmHWM in /proc/self/status)"
        )
    return ended.peak_rss_bytes, max(0, ended.peak_rss_bytes - imported.rss_bytes)


@dataclass(frozen=True, slots=True)
class _Accuracy:
    inputs: int
    correct: tuple[bool, ...] | None
    outputs_sha256: str

    @property
    def share(self) -> float | None:
        return sum(self.correct) / len(self.correct) if self.correct else None


def _accuracy(agent: _Agent, common: dict[str, Any], say: Progress) -> _Accuracy:
    say("predicting the test inputs")
    parts: list[PredictionsLine] = []
    totals: list[AccuracyLine] = []

    def take(line: AgentLine) -> None:
        if isinstance(line, PredictionsLine):
            parts.append(line)
        elif isinstance(line, AccuracyLine):
            totals.append(line)

    agent.do("accuracy", take, timeout_s=ACCURACY_TIMEOUT_S, **common)
    predicted = sum(len(part.predictions) for part in parts)
    if not totals or predicted != totals[-1].inputs:
        raise BoardError(f"{agent.session.name}: the agent predicted {predicted} inputs, not all of them")
    judged = [part.correct for part in parts if part.correct is not None]
    correct = tuple(right for part in judged for right in part)
    if judged and len(correct) != predicted:
        raise BoardError(f"{agent.session.name}: the agent judged {len(correct)} of {predicted} predictions")
    return _Accuracy(predicted, correct or None, totals[-1].outputs_sha256)


def _latency(
    agent: _Agent, common: dict[str, Any], plan: MeasurementPlan, undecided: Undecided | None, say: Progress
) -> _Timed:
    """Timed processes until the plan's share is done, then until the verdict is decided or the time is up."""
    timed = _Timed()
    process = 0
    while process < plan.processes or (_wants_more(timed, plan, undecided)):
        left_s = plan.max_seconds - timed.timed_ns / 1e9
        seconds = min(plan.min_seconds / plan.processes, max(left_s, 0.0))
        _one_process(agent, common, plan, timed, process, seconds, say)
        process += 1
    return timed


def _wants_more(timed: _Timed, plan: MeasurementPlan, undecided: Undecided | None) -> bool:
    if len(timed.durations_ns) >= KEPT_SAMPLES:
        return False
    if timed.runs < plan.min_runs or timed.timed_ns < plan.min_seconds * 1e9:
        return True
    return undecided is not None and timed.timed_ns < plan.max_seconds * 1e9 and undecided(timed.by_process())


def _one_process(
    agent: _Agent,
    common: dict[str, Any],
    plan: MeasurementPlan,
    timed: _Timed,
    process: int,
    seconds: float,
    say: Progress,
) -> None:
    runs_before, ns_before, kept_before = timed.runs, timed.timed_ns, len(timed.durations_ns)

    def take(line: AgentLine) -> None:
        if isinstance(line, SamplesLine):
            if len(line.start_ns) != len(line.duration_ns):
                raise BoardError(f"{agent.session.name}: the agent sent starts and durations of different number")
            timed.starts_ns.extend(line.start_ns)
            timed.durations_ns.extend(line.duration_ns)
            timed.processes.extend([process] * len(line.start_ns))
        elif isinstance(line, ProgressLine):
            timed.runs, timed.timed_ns = runs_before + line.runs, ns_before + line.timed_ns
            say(f"process {process + 1}: {timed.runs} runs in {timed.timed_ns / 1e9:.0f} s")
        elif isinstance(line, StateLine):
            timed.states.append(line)
        elif isinstance(line, WarmLine):
            timed.warm, timed.stride = line, line.stride
        elif isinstance(line, ColdStartLine):
            timed.cold_starts.append(line)
        elif isinstance(line, LoadedLine):
            _check_provider(agent.session, timed.loaded, line)
            timed.loaded = line

    agent.do(
        "latency",
        take,
        timeout_s=START_ALLOWANCE_S + 4 * plan.max_seconds,
        **common,
        warmup_runs=plan.warmup_runs,
        warmup_seconds=plan.warmup_seconds,
        min_runs=math.ceil(plan.min_runs / plan.processes),
        min_seconds=seconds,
        plan_runs=plan.min_runs,
        plan_seconds=plan.max_seconds,
        stride=timed.stride or None,
        keep=KEPT_SAMPLES - kept_before,
    )
    if len(timed.durations_ns) == kept_before or timed.warm is None or timed.loaded is None:
        raise BoardError(f"{agent.session.name}: the agent's timed pass gave no samples")


def _check_provider(session: Session, known: LoadedLine | None, now: LoadedLine) -> None:
    if known is not None and known.provider != now.provider:
        raise BoardError(
            f"{session.name}: one process ran on {printable(known.provider, 60)}, the next on "
            f"{printable(now.provider, 60)}: their samples cannot be put together"
        )
