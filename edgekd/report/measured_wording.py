"""What stands beside a measurement's latencies, in words: energy, others' work, outputs, the plan."""

from __future__ import annotations

from edgekd.core.statistics import Interval
from edgekd.records import HostParity, Measurement, PowerTrace
from edgekd.report.wording import number, plain

_GRADES = {
    "A": "an external meter",
    "B": "a shunt in the board's input rail",
    "C": "a part of the board's rails",
    "D": "an estimate, not this run's power",
}


def energy_lines(power: PowerTrace) -> list[str]:
    """Energy with its interval, gross and net, its meter and grade; and what forbids a judgement on it."""
    judged = " (judged)" if power.judged == "gross" else ""
    lines = [
        f"{number(power.energy_mj)} mJ per inference gross{judged}{_between(power.interval_mj)}, "
        f"{number(power.mean_w)} W on average"
    ]
    if power.net_mj is not None and power.idle_w is not None:
        judged = " (judged)" if power.judged == "net" else ""
        interval = _between(power.net_interval_mj)
        lines.append(f"{_signed(power.net_mj)} mJ net of idle{judged}{interval}, idle {number(power.idle_w)} W")
    lines.append(
        f"meter {plain(power.meter)}, rail {plain(power.rail)}, grade {power.grade} ({_GRADES[power.grade]}), "
        f"{number(power.rate_hz)} readings a second"
    )
    return lines + [f"not to be judged on: {plain(problem)}" for problem in power.problems]


def _between(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f" (95 %: {_signed(interval[0])} to {_signed(interval[1])})"


def _signed(value: float) -> str:
    return f"-{number(-value)}" if value < 0 else number(value)


def contention_text(measurement: Measurement) -> str:
    """What others took from the timed runs, in words; "" where the board did not tell."""
    found = measurement.contention
    if found is None:
        return ""
    text = (
        f"others interrupted at most {_percent(found.preempted_share)} of the runs and kept it waiting "
        f"{_percent(found.waited_share)} of the time"
    )
    if found.stolen_share >= 0.001:
        text += f"; the hypervisor took {_percent(found.stolen_share)}"
    if found.swapped:
        text += "; the board swapped"
    if measurement.plan.background == "declared":
        text += "; declared as belonging there"
    return text


def _percent(share: float) -> str:
    return f"{number(100 * share)} %" if share >= 0.0001 else "under 0.01 %" if share else "0 %"


def parity_text(parity: HostParity) -> str:
    """The board's outputs against this machine's."""
    what = f"{parity.inputs} inputs against this machine's outputs"
    if parity.bit_exact:
        return f"bit-exact over {what}"
    text = f"{100 * parity.identical:.2f} % of output values identical over {what}"
    if parity.max_abs_lsb is not None and parity.mean_abs_lsb is not None:
        text += f", at most {parity.max_abs_lsb} LSB apart (mean {parity.mean_abs_lsb:.3f})"
    return text


def plan_text(measurement: Measurement) -> str:
    """The plan and what was asked of it."""
    plan = measurement.plan
    parts: list[str] = [plan.name]
    if plan.settle_seconds:
        parts.append(f"judged after {number(plan.settle_seconds)} s of running")
    if plan.rate_hz is not None:
        parts.append(
            f"inputs at {number(plan.rate_hz)} Hz, {measurement.deadline_misses or 0} of {measurement.runs:,} "
            "deadlines missed"
        )
    if plan.pin_clocks:
        parts.append("clocks pinned")
    return ", ".join(parts)
