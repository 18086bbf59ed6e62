"""Measures one model file on one board, by fresh processes of the agent."""

from __future__ import annotations

import logging
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.board.agent_archive import agent_sha256
from edgekd.board.agent_client import SYSFS_VARIABLE, Agent, facts_line
from edgekd.board.agent_lines import (
    AccuracyLine,
    AgentLine,
    FactsLine,
    MemoryLine,
    PredictionsLine,
)
from edgekd.board.facts import matches_profile, parse_facts, state_notes, throttle_sample
from edgekd.board.provision import RuntimeEnvironment
from edgekd.board.session import Session
from edgekd.board.timed_pass import START_ALLOWANCE_S, Progress, TimedPass, Undecided, timed_pass
from edgekd.core.board_output import parse_process_memory, printable
from edgekd.core.statistics import percentile
from edgekd.errors import BoardError, ConfigurationError
from edgekd.records import DeviceProfile, Measurement, MeasurementPlan, ThrottleSample

logger = logging.getLogger(__name__)

RANDOM_SEED = 0
ACCURACY_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class BoardModel:
    """A model file on the board: its path there, the hash it must have, and its name here."""

    remote: str
    sha256: str
    name: str


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
    agent = Agent(session, environment.python, environment.site)
    common = {
        "runtime": plan.runtime,
        "model": model.remote,
        "model_sha256": model.sha256,
        "threads": plan.threads,
        "inputs": inputs,
        "seed": RANDOM_SEED,
    }
    before = facts_line(agent)
    say("measuring memory")
    memory = _memory(agent, common)
    accuracy = _accuracy(agent, common, say) if inputs is not None else None
    timed = timed_pass(agent, common, plan, undecided, say)
    evidence = _Evidence(before, timed, memory, accuracy, facts_line(agent))
    return _record(session, environment, model, plan, profile, evidence)


@dataclass(frozen=True, slots=True)
class _Accuracy:
    inputs: int
    correct: tuple[bool, ...] | None
    outputs_sha256: str

    @property
    def share(self) -> float | None:
        return sum(self.correct) / len(self.correct) if self.correct else None


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What the passes gave. `memory`: peak resident bytes, whole and less what the runtime's import took."""

    before: FactsLine
    timed: TimedPass
    memory: tuple[int, int]
    accuracy: _Accuracy | None
    after: FactsLine


def _record(
    session: Session,
    environment: RuntimeEnvironment,
    model: BoardModel,
    plan: MeasurementPlan,
    profile: DeviceProfile | None,
    evidence: _Evidence,
) -> Measurement:
    timed, accuracy = evidence.timed, evidence.accuracy
    assert timed.warm is not None and timed.loaded is not None
    facts, facts_after = parse_facts(evidence.before), parse_facts(evidence.after)
    matched, reason = matches_profile(facts, session, profile) if profile else (False, "no profile was given")
    origin_ns = timed.starts_ns[0]
    samples_ms = tuple(duration / 1e6 for duration in timed.durations_ns)
    p50, p90, p99 = (percentile(samples_ms, percent) for percent in (50, 90, 99))
    states = tuple(
        throttle_sample(state, evidence.before.state, (state.at_ns - origin_ns) / 1e9) for state in timed.states
    )
    return Measurement(
        board=_board_name(session, facts),
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
        peak_rss_bytes=evidence.memory[0],
        peak_memory_bytes=evidence.memory[1],
        cold_start_ms=statistics.median((line.load_ns + line.first_invoke_ns) / 1e6 for line in timed.cold_starts),
        accuracy=accuracy.share if accuracy else None,
        accuracy_inputs=accuracy.inputs if accuracy else 0,
        correct=accuracy.correct if accuracy else None,
        states=states,
        throttled=_any_throttled(states),
        facts={
            "before": facts,
            "after": facts_after,
            "method": _method(environment, timed, accuracy),
        },
        notes=state_notes(facts, facts_after, states),
    )


def _board_name(session: Session, facts: dict[str, Any]) -> str:
    """What the board is called in reports: its model where it tells one, and how it was reached."""
    kind = facts["device_tree_model"] or facts["cpu"] or facts["machine"]
    return f"{session.name} ({kind})"


def _method(environment: RuntimeEnvironment, timed: TimedPass, accuracy: _Accuracy | None) -> dict[str, Any]:
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


def _memory(agent: Agent, common: dict[str, Any]) -> tuple[int, int]:
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


def _accuracy(agent: Agent, common: dict[str, Any], say: Progress) -> _Accuracy:
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
