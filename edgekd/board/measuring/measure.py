"""Measures one model file on one board, by fresh processes of the agent."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.board.connection.session import Session
from edgekd.board.measuring.agent_client import Agent, facts_line
from edgekd.board.measuring.agent_lines import (
    AccuracyLine,
    AgentLine,
    FactsLine,
    MemoryLine,
    OutputsLine,
    PredictionsLine,
)
from edgekd.board.measuring.energy_pass import EnergyResult, energy_pass
from edgekd.board.measuring.extra_passes import RawOutputs, compare_outputs, end_to_end_pass, operator_pass
from edgekd.board.measuring.facts import matches_profile, parse_facts, state_notes, throttle_sample
from edgekd.board.measuring.method import method_of
from edgekd.board.measuring.tensorrt import EngineRequest, build_engine, device_of, engine_job
from edgekd.board.measuring.timed_pass import START_ALLOWANCE_S, Disturbed, Progress, TimedPass, Undecided, timed_pass
from edgekd.board.provisioning.provision import RuntimeEnvironment
from edgekd.core.board_output import parse_process_memory, printable
from edgekd.core.statistics import early_stopping_estimate, percentile
from edgekd.errors import BoardError, ConfigurationError
from edgekd.records import (
    DeviceProfile,
    HostParity,
    Measurement,
    MeasurementPlan,
    OperatorTime,
    ThrottleSample,
)
from edgekd.records.measurement import Engine

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
    engine: EngineRequest | None = None,
    reference: RawOutputs | None = None,
    on_progress: Progress | None = None,
    undecided: Undecided | None = None,
    disturbed: Disturbed | None = None,
) -> Measurement:
    """Measure latency, memory, energy where the plan names a meter, and over stored inputs accuracy of a model.

    The timed pass runs in `plan.processes` fresh processes, then in more while `undecided` says so and the plan's
    `max_seconds` are not reached. Everything else has passes of its own.

    Args:
        session: to the board.
        environment: what `provision` gave; its runtime must be the plan's.
        model: the file there.
        plan: how to measure.
        inputs: the board's path of an .npz with `inputs` (N, C, H, W) float32 and, for the accuracy, `labels` (N,);
            None feeds random inputs drawn from the model's own signature.
        profile: the kind the board may be of.
        engine: for TensorRT, what the ONNX file is and what to feed it; `inputs` then feeds nothing.
        reference: this machine's raw outputs for the same file and inputs, to compare the board's with.
        on_progress: told in words what goes on.
        disturbed: given what others took from one process, whether it spoils a verdict, so that another is run for it.
        undecided: given the samples so far in ms, grouped by process, whether a verdict still needs more.

    Raises:
        BoardError: the board failed, or the link.
        BuildError: the model is not the one that was built, or the runtime does not load it.
        ConfigurationError: the inputs do not fit the model, or the plan asks for another runtime.
    """
    if plan.provider is not None and plan.runtime != "onnx":
        raise ConfigurationError(f"--provider {plan.provider} is onnxruntime's: it needs an .onnx and --runtime onnx")
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
        "provider": plan.provider,
    }
    before = facts_line(agent)
    facts = parse_facts(before)
    matched, reason = matches_profile(facts, session, profile) if profile else (False, "no profile was given")
    built = None
    if environment.trtexec is not None:
        engine, inputs = engine or EngineRequest("fp32"), None
        say("building the engine: this may take minutes, once")
        device = device_of(session, session.sysfs)
        path, built = build_engine(agent, environment.trtexec, engine, (model.remote, model.sha256), device)
        job = engine_job(session, environment.trtexec, engine)
        common = {**common, **job, "model": path, "model_sha256": built.sha256, "inputs": None}
    fed = inputs is not None or (engine is not None and engine.inputs is not None)
    if plan.provider is not None:
        say(f"seeing what {plan.provider} runs of it")
        agent.do("provider", lambda line: None, timeout_s=START_ALLOWANCE_S, **common)
    say("measuring memory")
    memory = _memory(agent, common)
    accuracy = _accuracy(agent, common, say) if fed else None
    # What is timed or weighed runs with pinned clocks; what is not needs none.
    pinned = {**common, "pin_clocks": plan.pin_clocks}
    timed = timed_pass(agent, pinned, plan, undecided, say, disturbed=disturbed, cpus=before.cpus)
    end_to_end = end_to_end_pass(agent, pinned, plan, say) if inputs is not None else ()
    operators = operator_pass(agent, pinned, say) if plan.runtime != "tflite" else ()
    energy = EnergyResult(None)
    if plan.meter != "none" and built is None:
        energy = energy_pass(agent, pinned, plan, profile if matched else None, before.cpus, say)
    parity = compare_outputs(accuracy.outputs, reference) if accuracy and accuracy.outputs and reference else None
    evidence = _Evidence(
        before, timed, memory, accuracy, end_to_end, operators, energy, parity, built, facts_line(agent)
    )
    matching = (profile.name if profile and matched else None, reason)
    return _record(session, environment, model, plan, matching, evidence)


@dataclass(frozen=True, slots=True)
class _Accuracy:
    inputs: int
    correct: tuple[bool, ...] | None
    outputs_sha256: str
    outputs: RawOutputs | None

    @property
    def share(self) -> float | None:
        return sum(self.correct) / len(self.correct) if self.correct else None


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What the passes gave."""

    before: FactsLine
    timed: TimedPass
    memory: Memory
    accuracy: _Accuracy | None
    end_to_end_ms: tuple[float, ...]
    operators: tuple[OperatorTime, ...]
    energy: EnergyResult
    parity: HostParity | None
    engine: Engine | None
    after: FactsLine


def _record(
    session: Session,
    environment: RuntimeEnvironment,
    model: BoardModel,
    plan: MeasurementPlan,
    matching: tuple[str | None, str],
    evidence: _Evidence,
) -> Measurement:
    timed, accuracy, energy = evidence.timed, evidence.accuracy, evidence.energy
    assert timed.warm is not None and timed.loaded is not None
    facts, facts_after = parse_facts(evidence.before), parse_facts(evidence.after)
    outputs_sha256 = accuracy.outputs_sha256 if accuracy else None
    origin_ns = timed.starts_ns[0]
    samples_ms = tuple(duration / 1e6 for duration in timed.durations_ns)
    judged = [sample for group in timed.by_process(without=timed.set_aside) for sample in group]
    p50, p90, p99 = (percentile(judged, percent) for percent in (50, 90, 99))
    judged_from_s = (timed.starts_ns[timed.settled] - origin_ns) / 1e9
    states = tuple(
        throttle_sample(state, evidence.before.state, (state.at_ns - origin_ns) / 1e9) for state in timed.states
    )
    return Measurement(
        board=board_name(session, facts),
        matches_profile=matching[0],
        mismatch_reason=matching[1],
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
        peak_rss_bytes=evidence.memory.resident_bytes,
        peak_memory_bytes=evidence.memory.own_bytes + (evidence.memory.gpu_bytes or 0),
        gpu_memory_bytes=evidence.memory.gpu_bytes,
        engine=evidence.engine,
        cold_start_ms=statistics.median((line.load_ns + line.first_invoke_ns) / 1e6 for line in timed.cold_starts),
        accuracy=accuracy.share if accuracy else None,
        accuracy_inputs=accuracy.inputs if accuracy else 0,
        correct=accuracy.correct if accuracy else None,
        power=energy.power,
        early_stopping_p90_ms=early_stopping_estimate(judged, 90),
        judged_from_s=judged_from_s,
        deadline_misses=timed.missed if plan.rate_hz else None,
        end_to_end_ms=evidence.end_to_end_ms,
        end_to_end_p50_ms=percentile(evidence.end_to_end_ms, 50) if evidence.end_to_end_ms else None,
        end_to_end_p90_ms=percentile(evidence.end_to_end_ms, 90) if evidence.end_to_end_ms else None,
        per_operator=evidence.operators,
        host_parity=evidence.parity,
        contention=timed.judged_contention(evidence.before.cpus),
        disturbed_processes=tuple(sorted(timed.set_aside)),
        states=states,
        throttled=_any_throttled(states, judged_from_s),
        facts={
            "before": facts,
            "after": facts_after,
            "method": {
                **method_of(environment, plan, timed, outputs_sha256, session.sysfs),
                "energy": energy.method,
            },
        },
        notes=(
            *state_notes(facts, facts_after, states, power_asked=plan.meter != "none"),
            *energy.notes,
            *_own_notes(evidence, plan),
        ),
    )


def _own_notes(evidence: _Evidence, plan: MeasurementPlan) -> list[str]:
    notes = []
    if aside := evidence.timed.set_aside:
        notes.append(
            f"others disturbed {len(aside)} of {len(evidence.timed.shares)} processes: they were made up for and are "
            "not judged"
        )
    if plan.container is not None:
        notes.append(f"measured in a container of {plan.container}: of throttling it sees what /sys tells, no firmware")
    if evidence.engine is not None:
        engine = evidence.engine
        how = "built now" if engine.built_now else "built earlier"
        notes.append(f"engine {engine.sha256[:12]}, {how} on the board in {engine.build_seconds:.1f} s: in no latency")
        notes.append("peak memory is trtexec's whole process, with CUDA and TensorRT in it")
        if plan.meter not in ("none", "auto"):
            notes.append("energy was not measured: trtexec runs outside the energy pass")
    if evidence.memory.gpu_bytes is not None:
        notes.append(
            f"peak memory holds {evidence.memory.gpu_bytes / 2**20:.1f} MiB of the GPU, by {evidence.memory.gpu_from}"
        )
    return notes


def board_name(session: Session, facts: dict[str, Any]) -> str:
    """What the board is called in reports: its model where it tells one, and how it was reached."""
    kind = facts["device_tree_model"] or facts["cpu"] or facts["machine"]
    return f"{session.name} ({kind})"


def _any_throttled(states: Sequence[ThrottleSample], from_s: float) -> bool | None:
    # A state is read right before the first judged run.
    told = [state.throttled for state in states if state.throttled is not None and state.at_s >= from_s - 1.0]
    return any(told) if told else None


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak resident bytes of a fresh process, whole and less what the runtime's import took; on a Jetson the GPU's."""

    resident_bytes: int
    own_bytes: int
    gpu_bytes: int | None
    gpu_from: str


def _memory(agent: Agent, common: dict[str, Any]) -> Memory:
    found: list[MemoryLine] = []

    def take(line: AgentLine) -> None:
        if isinstance(line, MemoryLine):
            found.append(line)

    agent.do("memory", take, timeout_s=START_ALLOWANCE_S, **common)
    ended = parse_process_memory(found[-1].at_end) if found else None
    imported = parse_process_memory(found[-1].after_import) if found else None
    # Of trtexec, which is one program, there is no moment between import and load: all of it counts.
    before = imported.rss_bytes if imported else 0 if common["runtime"] == "tensorrt" else None
    if before is None or ended is None:
        raise BoardError(
            f"{agent.session.name}: its kernel does not tell a process's memory (VmHWM in /proc/self/status)"
        )
    gpu_kib = found[-1].gpu_kib
    return Memory(
        ended.peak_rss_bytes,
        max(0, ended.peak_rss_bytes - before),
        None if gpu_kib is None else gpu_kib * 1024,
        printable(found[-1].gpu_from, 100),
    )


def _accuracy(agent: Agent, common: dict[str, Any], say: Progress) -> _Accuracy:
    say("predicting the test inputs")
    parts: list[PredictionsLine] = []
    totals: list[AccuracyLine] = []
    outputs: list[OutputsLine] = []

    def take(line: AgentLine) -> None:
        if isinstance(line, OutputsLine):
            outputs.append(line)
        elif isinstance(line, PredictionsLine):
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
    return _Accuracy(predicted, correct or None, totals[-1].outputs_sha256, RawOutputs.of(outputs))
