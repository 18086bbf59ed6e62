"""The energy pass: the board runs and rests, a meter there or here is read, and the energy is worked out."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from edgekd.board.measuring.agent_client import Agent
from edgekd.board.measuring.agent_lines import (
    AgentLine,
    LoadedLine,
    MeterLine,
    NoMeterLine,
    PowerLine,
    RawState,
    StateLine,
    WindowLine,
)
from edgekd.board.measuring.facts import parse_state, throttle_sample
from edgekd.board.measuring.timed_pass import START_ALLOWANCE_S, Progress
from edgekd.board.power.external import DEFAULT_GAIN, ExternalMeter, Readings
from edgekd.board.power.host_clock import measure_offset
from edgekd.board.power.meters import METERS
from edgekd.board.power.replay import load_trace
from edgekd.core.board_output import printable
from edgekd.core.energy import MeterError, Window, estimate_energy, joined_offset, power_of_counter
from edgekd.errors import BoardError, ConfigurationError
from edgekd.records import DeviceProfile, MeasurementPlan, PowerTrace, PowerWindow

Grade = Literal["A", "B", "C", "D"]
EXTERNAL, REPLAY = "external:", "replay:"
FOREIGN_BOUND = 0.25
"""Share of the board's cores that others may keep busy while inferences run: their power is in the reading."""

CLOCK_CHANGE = 0.1
READINGS_LIMIT = 1_000_000
WINDOWS_LIMIT = 1000
CONTEXT_NOTE = "energy is measured in a pass of its own"


@dataclass(frozen=True, slots=True)
class EnergyResult:
    """The trace with its energy, None where there is no meter; and what a reader must know."""

    power: PowerTrace | None
    notes: tuple[str, ...] = ()
    method: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Heard:
    """What the board said in the pass."""

    meter: MeterLine | None = None
    no_meter: NoMeterLine | None = None
    loaded: LoadedLine | None = None
    segments: list[tuple[list[int], list[float]]] = field(default_factory=list)
    missed: int = 0
    windows: list[WindowLine] = field(default_factory=list)
    states: list[RawState] = field(default_factory=list)

    def take(self, line: AgentLine) -> None:
        if isinstance(line, PowerLine):
            if len(line.at_ns) != len(line.values) or len(self.segments[-1][0]) > READINGS_LIMIT:
                raise BoardError(
                    f"the board sent times and powers of different number, or over {READINGS_LIMIT} readings"
                )
            self.segments[-1][0].extend(line.at_ns)
            self.segments[-1][1].extend(line.values)
            self.missed += line.missed
        elif isinstance(line, WindowLine):
            if line.end_ns <= line.begin_ns or len(self.windows) >= WINDOWS_LIMIT:
                raise BoardError("the board sent a window of the energy pass that ends before it begins, or too many")
            self.windows.append(line)
        elif isinstance(line, StateLine):
            self.states.append(line)
        elif isinstance(line, MeterLine):
            if self.meter is not None and (self.meter.meter, self.meter.rail) != (line.meter, line.rail):
                was, now = (printable(f"{each.meter} {each.rail}", 100) for each in (self.meter, line))
                raise BoardError(
                    f"the board's power meter changed from {was} to {now} meanwhile: a sensor failed there"
                )
            self.meter = line
        elif isinstance(line, NoMeterLine):
            self.no_meter = line
        elif isinstance(line, LoadedLine):
            self.loaded = line


@dataclass(frozen=True, slots=True)
class _Meter:
    """A meter's description and its trace in seconds on the board's clock."""

    meter: str
    rail: str
    grade: Grade
    error: MeterError
    seconds: list[float]
    watts: list[float]


def check_meter(name: str) -> None:
    """Refuse what `--power` cannot mean, before a board is bothered.

    Raises:
        ConfigurationError: it names no meter, or a trace that is none.
    """
    if name.startswith(REPLAY):
        load_trace(Path(name.removeprefix(REPLAY)))
    elif name.startswith(EXTERNAL):
        ExternalMeter(name.removeprefix(EXTERNAL)).check()
    elif name not in ("auto", "none") and name.partition(":")[0] not in METERS:
        known = ", ".join(("auto", "none", *METERS, "external:COMMAND", "replay:FILE"))
        raise ConfigurationError(f"--power '{printable(name, 60)}' is no meter: {known}")


def energy_pass(
    agent: Agent,
    common: dict[str, Any],
    plan: MeasurementPlan,
    profile: DeviceProfile | None,
    cpus: int,
    say: Progress,
) -> EnergyResult:
    """Measure the energy per inference, with the meter that the plan names.

    Args:
        agent: on the board.
        common: the details that all passes share.
        plan: with `meter` other than `none`.
        profile: the board's, where it is of that kind: it may say in which rail an hwmon sensor's shunt sits.
        cpus: how many cores the board has.
        say: told in words what goes on.

    Raises:
        BoardError: the meter asked for is not there or fails, or the pass failed.
        ConfigurationError: the external command or the logged trace is unusable.
    """
    heard = _Heard()
    if plan.meter.startswith(EXTERNAL):
        meter = _external(agent, common, plan, heard, say)
    elif plan.meter.startswith(REPLAY):
        readings = load_trace(Path(plan.meter.removeprefix(REPLAY)))
        _run(agent, common, plan, "host", heard, say)
        meter = _replayed(plan.meter, readings, heard)
    else:
        _run(agent, common, plan, plan.meter, heard, say)
        if heard.meter is None:
            problems = heard.no_meter.problems if heard.no_meter else ()
            return EnergyResult(None, tuple(f"power was not measured: {printable(text, 300)}" for text in problems))
        meter = _on_board(agent, heard, heard.meter, profile)
    return _result(agent, plan, heard, meter, cpus)


def _run(agent: Agent, common: dict[str, Any], plan: MeasurementPlan, meter: str, heard: _Heard, say: Progress) -> None:
    """One idle and one running window in each of as many fresh processes as there are windows.

    Windows of one process are no more independent than its latencies are: each restart draws a level of its own.
    """
    windows = 2 * plan.energy_windows
    each_s = 2 * plan.energy_window_seconds + 5 * plan.energy_lead_seconds

    def take(line: AgentLine) -> None:
        heard.take(line)
        if isinstance(line, WindowLine):
            say(f"energy: {len(heard.windows)} of {windows} windows ({line.phase})")

    say("looking for a power meter" if meter == "auto" else f"measuring energy, {plan.energy_windows * each_s:.0f} s")
    for _ in range(plan.energy_windows):
        heard.segments.append(([], []))
        agent.do(
            "energy",
            take,
            timeout_s=START_ALLOWANCE_S + 2 * each_s,
            **common,
            meter=meter,
            warmup_runs=plan.warmup_runs,
            warmup_seconds=plan.warmup_seconds,
            windows=1,
            window_seconds=plan.energy_window_seconds,
            lead_seconds=plan.energy_lead_seconds,
            rate_hz=plan.rate_hz,
        )
        if heard.no_meter is not None:
            return


def _on_board(agent: Agent, heard: _Heard, line: MeterLine, profile: DeviceProfile | None) -> _Meter:
    seconds: list[float] = []
    watts: list[float] = []
    for at_ns, values in heard.segments:
        if len(at_ns) < 2 or any(later <= earlier for earlier, later in pairwise(at_ns)):
            raise BoardError(f"{agent.session.name}: the meter {printable(line.meter, 60)} there gave no usable trace")
        times = [at / 1e9 for at in at_ns]
        if line.counts == "joules":
            middles, means = power_of_counter(times, values)
            times, values = middles.tolist(), means.tolist()
        seconds += times
        watts += values
    rail, grade = printable(line.rail, 200), line.grade
    for sensor in profile.sensors if profile is not None else ():
        if line.meter == sensor.kind == "hwmon" and sensor.measures == "power" and sensor.grade is not None:
            rail, grade = f"{rail}: {sensor.rail} (profile)", sensor.grade
    error = MeterError(line.resolution_w, line.gain)
    return _Meter(printable(line.meter, 60), rail, grade, error, seconds, watts)


def _external(agent: Agent, common: dict[str, Any], plan: MeasurementPlan, heard: _Heard, say: Progress) -> _Meter:
    with ExternalMeter(plan.meter.removeprefix(EXTERNAL)) as meter:
        before = measure_offset(agent)
        _run(agent, common, plan, "host", heard, say)
        offset = joined_offset(before, measure_offset(agent))
    seconds, watts = meter.host_trace()
    error = MeterError(
        meter.readings.number("resolution_w", 0.0, meter.where),
        meter.readings.number("gain", DEFAULT_GAIN, meter.where),
        offset.error_s,
    )
    rail = printable(meter.readings.stated.get("rail", "between supply and board"), 200)
    return _Meter(meter.where, rail, "A", error, [at + offset.offset_s for at in seconds], watts)


def _replayed(name: str, readings: Readings, heard: _Heard) -> _Meter:
    if not heard.states:
        raise BoardError("the agent's energy pass told no beginning")
    shift = heard.states[0].at_ns / 1e9 - readings.seconds[0]
    error = MeterError(
        readings.number("resolution_w", 0.0, name),
        min(1.0, readings.number("gain", DEFAULT_GAIN, name)),
    )
    rail = printable(readings.stated.get("rail", "as logged"), 200)
    return _Meter(printable(name, 200), rail, "D", error, [at + shift for at in readings.seconds], readings.watts)


def _result(agent: Agent, plan: MeasurementPlan, heard: _Heard, meter: _Meter, cpus: int) -> EnergyResult:
    if not heard.windows or not heard.states:
        raise BoardError(f"{agent.session.name}: the agent's energy pass gave no windows")
    origin = heard.states[0].at_ns / 1e9
    seconds = [at - origin for at in meter.seconds]
    windows = {
        phase: [
            Window(line.begin_ns / 1e9 - origin, line.end_ns / 1e9 - origin, line.runs)
            for line in heard.windows
            if line.phase == phase
        ]
        for phase in ("idle", "active")
    }
    try:
        found = estimate_energy(seconds, meter.watts, windows["idle"], windows["active"], meter.error)
    except ValueError as error:
        raise BoardError(f"{agent.session.name}: energy cannot be worked out with {meter.meter}: {error}") from error
    foreign = _foreign_share(heard, cpus)
    problems = list(found.problems)
    if foreign is not None and foreign > FOREIGN_BOUND and plan.background != "declared":
        problems.append(
            f"others kept {100 * foreign:.0f} % of the board's cores busy meanwhile (bound {100 * FOREIGN_BOUND:.0f} %)"
        )
    if not plan.settle_seconds and any(
        throttle_sample(state, heard.states[0], 0.0).throttled for state in heard.states
    ):
        problems.append("the board throttled during the energy pass")
    power = PowerTrace(
        meter=meter.meter,
        rail=meter.rail,
        grade=meter.grade,
        rate_hz=found.rate_hz,
        idle_w=None if found.idle_w is None else max(0.0, found.idle_w),
        mean_w=max(0.0, found.mean_w),
        energy_mj=max(0.0, found.energy_mj),
        interval_mj=found.interval_mj,
        trace=tuple(zip(seconds, meter.watts, strict=True)),
        windows=tuple(
            PowerWindow(begin_s=window.begin_s, end_s=window.end_s, runs=window.runs)
            for phase in ("idle", "active")
            for window in windows[phase]
        ),
        net_mj=found.net_mj,
        net_interval_mj=found.net_interval_mj,
        judged=plan.energy_judged,
        resolution_w=meter.error.resolution_w,
        gain=min(1.0, meter.error.gain),
        clock_error_s=meter.error.clock_s,
        foreign_share=foreign,
        problems=tuple(problems),
    )
    return EnergyResult(power, _notes(heard), _method(heard, meter))


def _foreign_share(heard: _Heard, cpus: int) -> float | None:
    """The share of all cores' time that others worked while inferences ran."""
    active = [line for line in heard.windows if line.phase == "active"]
    length = sum(line.end_ns - line.begin_ns for line in active)
    if not length or not cpus:
        return None
    foreign = sum(line.busy_ns - line.own_ns for line in active)
    return min(1.0, max(0.0, foreign / (length * cpus)))


def _notes(heard: _Heard) -> tuple[str, ...]:
    """Idle counts only at the clock state of the work: say where it was another."""
    clocks = [max(parse_state(state)["clocks_mhz"].values(), default=None) for state in heard.states]
    governors = [parse_state(state)["governors"] for state in heard.states]
    notes = []
    if any(governor != governors[0] for governor in governors):
        notes.append("the frequency governor changed during the energy pass: idle and work are not comparable")
    known = [clock for clock in clocks if clock is not None]
    if known and max(known) - min(known) > CLOCK_CHANGE * max(known):
        notes.append(
            f"idle and work ran at different clocks ({min(known):.0f} to {max(known):.0f} MHz): the governor's doing; "
            "--pin-clocks holds them"
        )
    return tuple(notes)


def _method(heard: _Heard, meter: _Meter) -> dict[str, Any]:
    return {
        "passes": CONTEXT_NOTE,
        "integration": "trapezoid rule on the board's monotonic clock",
        "processes": len(heard.segments),
        "clock_origin_ns": heard.states[0].at_ns,
        "readings": len(meter.watts),
        "readings_missed": heard.missed,
        "runtime_settings": heard.loaded.settings if heard.loaded else None,
    }
