"""Energy per inference from a trace of power: pure arithmetic over seconds and watts.

A trace is two arrays of one length: seconds on the board's monotonic clock, strictly increasing, and watts. Energy is
its integral by the trapezoid rule over windows in which the board did one thing: nothing, or inferences one after
another. The windows lie inside a longer stretch of the same doing, so that neither a shifted clock nor a sensor that
averages moves work of another kind across their edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgekd.core.statistics import Interval, student_t

Floats: TypeAlias = NDArray[np.float64]

LEAST_WINDOWS = 5
LEAST_WINDOW_S = 10.0
LEAST_READINGS = 5
"""Readings that a window needs: fewer say nothing of what happened between them."""

GAP_FACTOR, GAP_FLOOR_S = 5.0, 0.5
FINE_STEP = 0.01
SPIKE_FACTOR = 5.0
LEVEL_SHIFT = 0.3


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time in seconds, and how many inferences ran in it: none where the board was idle."""

    begin_s: float
    end_s: float
    runs: int = 0

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True)
class MeterError:
    """How far a meter's reading may be from the truth.

    `resolution_w` is the step of a reading and its zero error, in W; `gain` the largest relative error (shunt,
    amplifier, reference), a fraction; `clock_s` by how much its clock may be shifted against the board's, in s.
    """

    resolution_w: float
    gain: float
    clock_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EnergyEstimate:
    """What one inference draws, in mJ, and the mean power in W. Net is gross less the idle baseline.

    `problems` says in words what forbids a judgement on it.
    """

    rate_hz: float
    idle_w: float | None
    mean_w: float
    energy_mj: float
    interval_mj: Interval
    net_mj: float | None
    net_interval_mj: Interval | None
    problems: tuple[str, ...]


def trapezoid_joules(seconds: ArrayLike, watts: ArrayLike, begin_s: float, end_s: float) -> float:
    """The integral of power over [begin_s, end_s] in J, by the trapezoid rule, linear between readings.

    It adds: the energy from a to c is that from a to b plus that from b to c, wherever b lies.

    Raises:
        ValueError: the readings do not reach over the whole stretch, or do not go forward in time.
    """
    times, powers = _trace(seconds, watts)
    if not (times[0] <= begin_s <= end_s <= times[-1]):
        raise ValueError(
            f"the trace runs from {times[0]:.3f} to {times[-1]:.3f} s and does not cover {begin_s:.3f} to {end_s:.3f} s"
        )
    inside = (times > begin_s) & (times < end_s)
    t = np.concatenate(([begin_s], times[inside], [end_s]))
    p = np.concatenate(([np.interp(begin_s, times, powers)], powers[inside], [np.interp(end_s, times, powers)]))
    return float(np.sum(np.diff(t) * (p[1:] + p[:-1]) / 2))


def power_of_counter(seconds: ArrayLike, joules: ArrayLike) -> tuple[Floats, Floats]:
    """Readings of a cumulative counter as power: the mean between two readings, placed midway between them."""
    times, energy = np.asarray(seconds, np.float64), np.asarray(joules, np.float64)
    return (times[1:] + times[:-1]) / 2, np.diff(energy) / np.diff(times)


def problems_of_trace(seconds: ArrayLike, watts: ArrayLike, windows: Sequence[Window], step_w: float) -> list[str]:
    """What is wrong with a trace over the windows it is to serve, in words: stopped, stuck, jumping, impossible.

    - stopped: the windows reach beyond the readings, or a gap is over five times the usual interval (and 0.5 s);
    - stuck: one and the same value through a whole window from a meter whose step is below 1 % of it, or through
      the whole trace whatever the step. Electronics at work never draw the same to a hundredth for ten seconds;
    - jumping: a lone reading over five times the window's median or below a fifth of it, or windows of one kind
      whose means differ by over 30 % of their median;
    - impossible: below zero by more than a step, or not a number.
    """
    times, powers = np.asarray(seconds, np.float64), np.asarray(watts, np.float64)
    if len(times) < 2 or not windows:
        return ["the meter gave no trace"]
    if not np.isfinite(powers).all():
        return ["the meter gave readings that are no numbers"]
    if float(powers.min()) < -max(step_w, 1e-9):
        return [f"the meter read {powers.min():.3f} W: negative power"]
    found = _gaps(times, windows)
    if len(np.unique(powers)) == 1:
        found.append(f"the meter is stuck: every reading is {powers[0]:.4g} W")
    else:
        found += _stuck(times, powers, windows, step_w)
    return found + _jumps(times, powers, windows)


def estimate_energy(
    seconds: ArrayLike, watts: ArrayLike, idle: Sequence[Window], active: Sequence[Window], error: MeterError
) -> EnergyEstimate:
    """Energy per inference, gross and net, with a 95 % interval.

    The interval adds what does not average out (gain, half a step of the reading, the clock's shift times the range
    of power) to what does: the spread of the windows by Student's t, and the sampling error, in quadrature. The
    sampling error is taken from what the integral changes when every other reading is left out.

    Args:
        seconds: times of the readings on the board's clock, s.
        watts: the readings, W.
        idle: windows in which nothing ran; at least five of at least 10 s, or that is a problem.
        active: windows of inferences; the same holds.
        error: the meter's.

    Raises:
        ValueError: no inference ran in a window that the trace covers.
    """
    times, powers = _trace(seconds, watts)
    step_w = max(error.resolution_w, _observed_step(times, powers, [*idle, *active]))
    problems = problems_of_trace(times, powers, [*idle, *active], step_w)
    idle, active = ([w for w in windows if _covered(times, w)] for windows in (idle, active))
    runs = sum(window.runs for window in active)
    if not active or runs < 1:
        raise ValueError("; ".join(["no inference ran in a window that the trace covers", *problems]))
    stated = MeterError(step_w, error.gain, error.clock_s)
    mean_w, half_w = _mean_power(times, powers, active, stated)
    length_s = math.fsum(window.seconds for window in active)
    energy_mj = 1e3 * mean_w * length_s / runs
    joules = [trapezoid_joules(times, powers, window.begin_s, window.end_s) for window in active]
    spread_mj = _half_width([1e3 * each / max(window.runs, 1) for each, window in zip(joules, active, strict=True)])
    half_mj = math.hypot(1e3 * half_w * length_s / runs, spread_mj)
    problems += _too_little(idle, active)
    idle_w = net = net_interval = None
    if idle:
        idle_w, idle_half_w = _mean_power(times, powers, idle, stated)
        net = energy_mj - 1e3 * idle_w * length_s / runs
        half_net = half_mj + 1e3 * idle_half_w * length_s / runs
        net_interval = (net - half_net, net + half_net)
    return EnergyEstimate(
        rate_hz=_rate(times),
        idle_w=idle_w,
        mean_w=mean_w,
        energy_mj=energy_mj,
        interval_mj=(max(0.0, energy_mj - half_mj), energy_mj + half_mj),
        net_mj=net,
        net_interval_mj=net_interval,
        problems=tuple(problems),
    )


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """The board's monotonic clock less the host's, in s, and how far that may be wrong."""

    offset_s: float
    error_s: float


def estimate_offset(exchanges: Sequence[tuple[float, float, float]]) -> ClockOffset:
    """The offset of two clocks from exchanges (sent at, the board's clock, answered at), in s.

    That of the fastest exchange, with half its round trip as the bound of the error: the board read its clock
    somewhere between sending and answering (Cristian, "Probabilistic clock synchronization", 1989).

    Raises:
        ValueError: there is no exchange, or one was answered before it was sent.
    """
    if not exchanges or any(answered < sent for sent, _, answered in exchanges):
        raise ValueError("an offset needs at least one exchange whose answer comes after its question")
    sent, board, answered = min(exchanges, key=lambda exchange: exchange[2] - exchange[0])
    return ClockOffset(board - (sent + answered) / 2, (answered - sent) / 2)


def joined_offset(before: ClockOffset, after: ClockOffset) -> ClockOffset:
    """One offset for the time between two estimates: their mean, and an error that holds both and their drift."""
    offset = (before.offset_s + after.offset_s) / 2
    drift = abs(before.offset_s - after.offset_s) / 2
    return ClockOffset(offset, drift + max(before.error_s, after.error_s))


def _covered(times: Floats, window: Window) -> bool:
    return bool(times[0] <= window.begin_s and window.end_s <= times[-1])


def _trace(seconds: ArrayLike, watts: ArrayLike) -> tuple[Floats, Floats]:
    times, powers = np.asarray(seconds, np.float64), np.asarray(watts, np.float64)
    if len(times) != len(powers) or len(times) < 2:
        raise ValueError(f"a trace needs two readings at least: {len(times)} times and {len(powers)} powers")
    if not (np.diff(times) > 0).all():
        raise ValueError("the readings do not go forward in time")
    return times, powers


def _mean_power(times: Floats, powers: Floats, windows: Sequence[Window], error: MeterError) -> tuple[float, float]:
    """Mean power over the windows, and half the width of its 95 % interval."""
    length_s = math.fsum(window.seconds for window in windows)
    each = [trapezoid_joules(times, powers, window.begin_s, window.end_s) for window in windows]
    mean_w = math.fsum(each) / length_s
    spread_w = _half_width([joules / window.seconds for joules, window in zip(each, windows, strict=True)])
    sampling_w = _sampling_error(times, powers, windows, each) / length_s
    inside = _inside(times, powers, windows)
    range_w = float(np.ptp(inside)) if len(inside) else 0.0
    clock_w = range_w * 2 * error.clock_s * len(windows) / length_s
    systematic_w = error.gain * abs(mean_w) + error.resolution_w / 2 + clock_w
    return mean_w, systematic_w + math.hypot(spread_w, sampling_w)


def _half_width(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    return student_t(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _sampling_error(times: Floats, powers: Floats, windows: Sequence[Window], joules: Sequence[float]) -> float:
    """How much the integral (J) hangs on the rate: its change when only every other reading is taken, in all."""
    changes = []
    for first in (0, 1):
        kept_times, kept = times[first::2], powers[first::2]
        if len(kept_times) < 2:
            return 0.0
        total = 0.0
        for window, whole in zip(windows, joules, strict=True):
            begin, end = max(window.begin_s, kept_times[0]), min(window.end_s, kept_times[-1])
            if begin < end:
                part = trapezoid_joules(kept_times, kept, begin, end)
                total += part * window.seconds / (end - begin) - whole
        changes.append(abs(total))
    return max(changes)


def _inside(times: Floats, powers: Floats, windows: Sequence[Window]) -> Floats:
    parts = [powers[(times >= window.begin_s) & (times <= window.end_s)] for window in windows]
    return np.concatenate(parts) if parts else np.empty(0)


def _observed_step(times: Floats, powers: Floats, windows: Sequence[Window]) -> float:
    """The smallest step between different readings of one window: no meter resolves more than it ever shows."""
    steps = []
    for window in windows:
        values = np.unique(_inside(times, powers, [window]))
        if len(values) > 1:
            steps.append(float(np.diff(values).min()))
    return min(steps, default=0.0)


def _rate(times: Floats) -> float:
    return 1 / float(np.median(np.diff(times)))


def _too_little(idle: Sequence[Window], active: Sequence[Window]) -> list[str]:
    found = []
    for name, windows in (("idle", idle), ("running", active)):
        whole = [window for window in windows if window.seconds >= LEAST_WINDOW_S * (1 - 1e-6)]
        if len(whole) < LEAST_WINDOWS:
            found.append(
                f"{len(whole)} windows of at least {LEAST_WINDOW_S:g} s {name}, but {LEAST_WINDOWS} are needed"
            )
    return found


def _gaps(times: Floats, windows: Sequence[Window]) -> list[str]:
    begin, end = min(window.begin_s for window in windows), max(window.end_s for window in windows)
    if times[0] > begin or times[-1] < end:
        return [f"the meter stopped: readings from {times[0]:.1f} to {times[-1]:.1f} s of {begin:.1f} to {end:.1f} s"]
    limit = max(GAP_FACTOR * float(np.median(np.diff(times))), GAP_FLOOR_S)
    for window in windows:
        # The readings in the window and the nearest on either side: between windows there need be none.
        first = int(np.searchsorted(times, window.begin_s, side="right")) - 1
        last = int(np.searchsorted(times, window.end_s))
        around = times[first : last + 1]
        longest = int(np.argmax(np.diff(around)))
        if np.diff(around)[longest] > limit:
            return [f"the meter stopped for {np.diff(around)[longest]:.2f} s at {around[longest]:.1f} s"]
        if len(around) - 2 < LEAST_READINGS:
            return [f"the meter is too slow: under {LEAST_READINGS} readings in a window of {window.seconds:.1f} s"]
    return []


def _stuck(times: Floats, powers: Floats, windows: Sequence[Window], step_w: float) -> list[str]:
    for window in windows:
        values = _inside(times, powers, [window])
        if len(values) >= LEAST_READINGS and len(np.unique(values)) == 1 and step_w < FINE_STEP * abs(values[0]):
            return [f"the meter is stuck: {values[0]:.4g} W from {window.begin_s:.1f} to {window.end_s:.1f} s"]
    return []


def _jumps(times: Floats, powers: Floats, windows: Sequence[Window]) -> list[str]:
    for window in windows:
        values = _inside(times, powers, [window])
        middle = float(np.median(values)) if len(values) else 0.0
        if middle <= 0:
            continue
        wild = values[(values > SPIKE_FACTOR * middle) | (values < middle / SPIKE_FACTOR)]
        if len(wild):
            return [f"the meter jumps: it read {wild[0]:.4g} W where {middle:.4g} W is usual"]
    for running in (False, True):
        means = [
            float(np.mean(values))
            for window in windows
            if (window.runs > 0) is running and len(values := _inside(times, powers, [window]))
        ]
        middle = float(np.median(means)) if means else 0.0
        if middle > 0 and max(abs(mean - middle) for mean in means) > LEVEL_SHIFT * middle:
            kind = "running" if running else "idle"
            return [f"the meter jumps: windows {kind} read from {min(means):.4g} to {max(means):.4g} W"]
    return []
