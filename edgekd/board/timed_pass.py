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
    ContentionLine,
    LoadedLine,
    PinnedLine,
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
    missed: int = 0
    contention: list[ContentionLine] = field(default_factory=list)
    pinned: PinnedLine | None = None
    settled: int = 0

    @property
    def kept(self) -> int:
        """Number of samples kept."""
        return len(self.durations_ns)

    def by_process(self) -> list[list[float]]:
        """Samples in ms, grouped by process; without those from before the board had settled."""
        groups: dict[int, list[float]] = {}
        for process, duration in zip(self.processes[self.settled :], self.durations_ns[self.settled :], strict=True):
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
        elif isinstance(line, ContentionLine):
            self.contention.append(line)
        elif isinstance(line, PinnedLine):
            self.pinned = line
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
    if plan.settle_seconds:
        say(f"running {plan.settle_seconds:.0f} s until the board has settled")
        _one_process(agent, common, plan, timed, process, say, _Share(1, plan.settle_seconds, plan.settle_seconds))
        # What came before is kept, but neither counted nor judged.
        timed.settled, timed.runs, timed.timed_ns, timed.missed = timed.kept, 0, 0, 0
        timed.contention.clear()
        process = 1
    first = process
    while timed.kept < KEPT_SAMPLES and (process - first < plan.processes or _wants_more(timed, plan, undecided)):
        left_s = max(0.0, plan.max_seconds - plan.settle_seconds - timed.timed_ns / 1e9)
        if process > first and left_s <= 0:
            break
        share = _Share(
            math.ceil(plan.min_runs / plan.processes),
            min(plan.min_seconds / plan.processes, left_s),
            left_s / max(1, first + plan.processes - process),
        )
        _one_process(agent, common, plan, timed, process, say, share)
        process += 1
    return timed


@dataclass(frozen=True, slots=True)
class _Share:
    """What one process is to do: at least these runs and seconds, but no more than `max_seconds`."""

    min_runs: int
    min_seconds: float
    max_seconds: float


def _wants_more(timed: TimedPass, plan: MeasurementPlan, undecided: Undecided | None) -> bool:
    most_ns = (plan.max_seconds - plan.settle_seconds) * 1e9
    if timed.timed_ns >= most_ns:
        return False
    if timed.runs < plan.min_runs or timed.timed_ns < plan.min_seconds * 1e9:
        return True
    return undecided is not None and undecided(timed.by_process())


def _one_process(
    agent: Agent,
    common: dict[str, Any],
    plan: MeasurementPlan,
    timed: TimedPass,
    process: int,
    say: Progress,
    share: _Share,
) -> None:
    runs_before, ns_before, missed_before, kept_before = timed.runs, timed.timed_ns, timed.missed, timed.kept

    def take(line: AgentLine) -> None:
        timed.take(line, process, agent.session.name)
        if isinstance(line, ProgressLine):
            timed.runs, timed.timed_ns = runs_before + line.runs, ns_before + line.timed_ns
            timed.missed = missed_before + line.missed
            say(f"process {process + 1}: {timed.runs} runs in {timed.timed_ns / 1e9:.0f} s")

    agent.do(
        "latency",
        take,
        timeout_s=START_ALLOWANCE_S + 4 * plan.max_seconds,
        **common,
        warmup_runs=plan.warmup_runs,
        warmup_seconds=plan.warmup_seconds,
        min_runs=share.min_runs,
        min_seconds=share.min_seconds,
        max_seconds=share.max_seconds,
        plan_runs=plan.min_runs,
        plan_seconds=plan.max_seconds,
        rate_hz=plan.rate_hz,
        stride=timed.stride or None,
        keep=KEPT_SAMPLES - kept_before,
    )
    if timed.kept == kept_before or timed.warm is None or timed.loaded is None:
        raise BoardError(f"{agent.session.name}: the agent's timed pass gave no samples")
