"""The timed pass: fresh processes one after another, until the plan is done and the verdict decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekd.board.agent_client import Agent
from edgekd.board.agent_lines import (
    AgentLine,
    ColdStartLine,
    LoadedLine,
    ProgressLine,
    RawState,
    SamplesLine,
    StateLine,
    WarmLine,
)
from edgekd.core.board_output import printable
from edgekd.core.statistics import KEPT_SAMPLES
from edgekd.errors import BoardError
from edgekd.records import MeasurementPlan

Progress = Callable[[str], None]
Undecided = Callable[[Sequence[Sequence[float]]], bool]


START_ALLOWANCE_S = 120.0


@dataclass(slots=True)
class TimedPass:
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

    @property
    def kept(self) -> int:
        """Number of samples kept."""
        return len(self.durations_ns)

    def by_process(self) -> list[list[float]]:
        """Samples in ms, grouped by process."""
        groups: dict[int, list[float]] = {}
        for process, duration in zip(self.processes, self.durations_ns, strict=True):
            groups.setdefault(process, []).append(duration / 1e6)
        return list(groups.values())

    def take(self, line: AgentLine, process: int, board: str) -> None:
        """Add what one line of a process says.

        Raises:
            BoardError: it contradicts itself or an earlier process.
        """
        if isinstance(line, SamplesLine):
            if len(line.start_ns) != len(line.duration_ns):
                raise BoardError(f"{board}: the agent sent starts and durations of different number")
            self.starts_ns.extend(line.start_ns)
            self.durations_ns.extend(line.duration_ns)
            self.processes.extend([process] * len(line.start_ns))
        elif isinstance(line, StateLine):
            self.states.append(line)
        elif isinstance(line, WarmLine):
            self.warm, self.stride = line, line.stride
        elif isinstance(line, ColdStartLine):
            self.cold_starts.append(line)
        elif isinstance(line, LoadedLine):
            if self.loaded is not None and self.loaded.provider != line.provider:
                raise BoardError(
                    f"{board}: one process ran on {printable(self.loaded.provider, 60)}, the next on "
                    f"{printable(line.provider, 60)}: their samples cannot be put together"
                )
            self.loaded = line


def timed_pass(
    agent: Agent, common: dict[str, Any], plan: MeasurementPlan, undecided: Undecided | None, say: Progress
) -> TimedPass:
    """Timed processes until the plan is done, then until the verdict is decided or the time is up.

    Raises:
        BoardError: a process failed or gave no samples.
    """
    timed = TimedPass()
    process = 0
    while timed.kept < KEPT_SAMPLES and (process < plan.processes or _wants_more(timed, plan, undecided)):
        _one_process(agent, common, plan, timed, process, say)
        process += 1
    return timed


def _wants_more(timed: TimedPass, plan: MeasurementPlan, undecided: Undecided | None) -> bool:
    if timed.runs < plan.min_runs or timed.timed_ns < plan.min_seconds * 1e9:
        return True
    return undecided is not None and timed.timed_ns < plan.max_seconds * 1e9 and undecided(timed.by_process())


def _one_process(
    agent: Agent, common: dict[str, Any], plan: MeasurementPlan, timed: TimedPass, process: int, say: Progress
) -> None:
    runs_before, ns_before, kept_before = timed.runs, timed.timed_ns, timed.kept
    left_s = max(0.0, plan.max_seconds - ns_before / 1e9)

    def take(line: AgentLine) -> None:
        timed.take(line, process, agent.session.name)
        if isinstance(line, ProgressLine):
            timed.runs, timed.timed_ns = runs_before + line.runs, ns_before + line.timed_ns
            say(f"process {process + 1}: {timed.runs} runs in {timed.timed_ns / 1e9:.0f} s")

    agent.do(
        "latency",
        take,
        timeout_s=START_ALLOWANCE_S + 4 * plan.max_seconds,
        **common,
        warmup_runs=plan.warmup_runs,
        warmup_seconds=plan.warmup_seconds,
        min_runs=math.ceil(plan.min_runs / plan.processes),
        min_seconds=min(plan.min_seconds / plan.processes, left_s),
        plan_runs=plan.min_runs,
        plan_seconds=plan.max_seconds,
        stride=timed.stride or None,
        keep=KEPT_SAMPLES - kept_before,
    )
    if timed.kept == kept_before or timed.warm is None or timed.loaded is None:
        raise BoardError(f"{agent.session.name}: the agent's timed pass gave no samples")
