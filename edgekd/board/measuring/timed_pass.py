"""The timed pass: fresh processes one after another, until the plan is done and the verdict decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from edgekd.board.measuring.agent_client import Agent
from edgekd.board.measuring.agent_lines import (
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
from edgekd.records import Contention, MeasurementPlan

Progress = Callable[[str], None]
Undecided = Callable[[Sequence[Sequence[float]]], bool]
Disturbed = Callable[[Contention], bool]


START_ALLOWANCE_S = 120.0


@dataclass(frozen=True, slots=True)
class ProcessShare:
    """What one process contributed, and whether others disturbed it so that its samples say nothing."""

    process: int
    runs: int
    timed_ns: int
    disturbed: bool


@dataclass(slots=True)
class TimedPass:
    """What the timed processes have given so far, in order. `set_aside`: processes whose samples are not judged."""

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
    contention: dict[int, ContentionLine] = field(default_factory=dict)
    shares: list[ProcessShare] = field(default_factory=list)
    set_aside: frozenset[int] = frozenset()
    pinned: PinnedLine | None = None
    settled: int = 0

    @property
    def kept(self) -> int:
        """Number of samples kept."""
        return len(self.durations_ns)

    def quiet(self) -> list[ProcessShare]:
        """The processes that nobody disturbed."""
        return [share for share in self.shares if not share.disturbed]

    def by_process(self, without: Set[int] = frozenset()) -> list[list[float]]:
        """Samples in ms, grouped by process; without those from before the board had settled, and some processes'."""
        groups: dict[int, list[float]] = {}
        for process, duration in zip(self.processes[self.settled :], self.durations_ns[self.settled :], strict=True):
            if process not in without:
                groups.setdefault(process, []).append(duration / 1e6)
        return list(groups.values())

    def judged_contention(self, cpus: int) -> Contention | None:
        """What others took from the processes that are judged."""
        shares = [share for share in self.shares if share.process not in self.set_aside]
        lines = [self.contention[share.process] for share in shares if share.process in self.contention]
        return contention_of(lines, sum(share.timed_ns for share in shares), cpus)

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
            self.contention[process] = line
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
    agent: Agent,
    common: dict[str, Any],
    plan: MeasurementPlan,
    undecided: Undecided | None,
    say: Progress,
    *,
    disturbed: Disturbed | None = None,
    cpus: int = 1,
) -> TimedPass:
    """Timed processes until the plan is done, then until the verdict is decided or the time is up.

    A process that others disturbed too much, by the kernel's account and whatever its samples are, is made up for by
    another while time is left, and set aside once the plan is done without it.

    Raises:
        BoardError: a process failed or gave no samples.
    """
    timed = TimedPass()
    process = 0
    if plan.settle_seconds:
        say(f"running {plan.settle_seconds:.0f} s until the board has settled")
        one_process(agent, common, plan, timed, process, say, Share(1, plan.settle_seconds, plan.settle_seconds))
        # What came before is kept, but neither counted nor judged.
        timed.settled, timed.runs, timed.timed_ns, timed.missed = timed.kept, 0, 0, 0
        timed.contention.clear()
        process = 1
    first = process
    while timed.kept < KEPT_SAMPLES and _wants_more(timed, plan, undecided):
        left_s = max(0.0, plan.max_seconds - plan.settle_seconds - timed.timed_ns / 1e9)
        if process > first and left_s <= 0:
            break
        share = Share(
            math.ceil(plan.min_runs / plan.processes),
            min(plan.min_seconds / plan.processes, left_s),
            left_s / max(1, plan.processes - len(timed.quiet())),
        )
        runs, timed_ns = timed.runs, timed.timed_ns
        one_process(agent, common, plan, timed, process, say, share)
        runs, timed_ns = timed.runs - runs, timed.timed_ns - timed_ns
        own = [timed.contention[process]] if process in timed.contention else []
        found = contention_of(own, timed_ns, cpus)
        spoilt = disturbed is not None and found is not None and disturbed(found)
        timed.shares.append(ProcessShare(process, runs, timed_ns, spoilt))
        if spoilt:
            say(f"process {process + 1} was disturbed by others' work: another makes up for it while time is left")
        process += 1
    if len(timed.quiet()) >= plan.processes:
        timed.set_aside = frozenset(share.process for share in timed.shares if share.disturbed)
    return timed


def contention_of(lines: Sequence[ContentionLine], timed_ns: int, cpus: int) -> Contention | None:
    """What others took from timed runs, over the processes that the lines are of; None where the agent told nothing."""
    runs = sum(line.runs for line in lines)
    if not runs:
        return None
    waited, ran = sum(line.waited_ns for line in lines), sum(line.ran_ns for line in lines)
    faults = sum(line.major_faults for line in lines)
    stolen = sum(line.stolen_ns for line in lines) / max(1, timed_ns * max(cpus, 1))
    return Contention(
        preempted_share=min(1.0, sum(line.preempted for line in lines) / runs),
        waited_share=waited / (waited + ran) if waited + ran else 0.0,
        stolen_share=min(1.0, stolen),
        major_faults=faults,
        swapped=faults > 0 and any(line.swapped_pages for line in lines),
    )


@dataclass(frozen=True, slots=True)
class Share:
    """What one process is to do: at least these runs and seconds, but no more than `max_seconds`."""

    min_runs: int
    min_seconds: float
    max_seconds: float


def _wants_more(timed: TimedPass, plan: MeasurementPlan, undecided: Undecided | None) -> bool:
    """Whether the plan is not done by undisturbed processes, or the verdict on them is open, and time is left."""
    quiet = timed.quiet()
    # A plan that is too short for its processes gets them all the same, unless it is made up for disturbed ones.
    if len(timed.shares) < plan.processes:
        return True
    if timed.timed_ns >= (plan.max_seconds - plan.settle_seconds) * 1e9:
        return False
    if len(quiet) < plan.processes:
        return True
    runs, timed_ns = sum(share.runs for share in quiet), sum(share.timed_ns for share in quiet)
    if runs < plan.min_runs or timed_ns < plan.min_seconds * 1e9:
        return True
    spoilt = {share.process for share in timed.shares if share.disturbed}
    return undecided is not None and undecided(timed.by_process(without=spoilt))


def one_process(
    agent: Agent,
    common: dict[str, Any],
    plan: MeasurementPlan,
    timed: TimedPass,
    process: int,
    say: Progress,
    share: Share,
) -> None:
    """Run one timed process and add what it gives to `timed`.

    Raises:
        BoardError: it failed or gave no samples.
    """
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
