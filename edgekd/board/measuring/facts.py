"""Board facts: the agent's raw text, parsed here; and whether a board is of a profile's kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from edgekd.board.connection.session import Session
from edgekd.board.measuring.agent_lines import FactsLine, RawState
from edgekd.core.board_output import (
    parse_clock_mhz,
    parse_cpu_features,
    parse_cpu_model,
    parse_device_tree_model,
    parse_integer,
    parse_loadavg,
    parse_meminfo,
    parse_os_release,
    parse_power_mode,
    parse_temperatures,
    parse_throttled,
    printable,
)
from edgekd.records import DeviceProfile, ThrottleSample

# Above this share of its cores, the load of others is worth a note.
BUSY_SHARE = 0.5


def parse_state(raw: RawState) -> dict[str, Any]:
    """The state as values: governors, clocks in MHz, temperatures in °C, throttling, load."""
    throttling = parse_throttled(raw.get_throttled)
    counts = {name: parse_integer(text) for name, text in {**raw.throttle_counts, **raw.overcurrent_counts}.items()}
    alerts = {name: parse_integer(text) for name, text in raw.throttle_alerts.items()}
    return {
        "governors": {cpu: printable(name, 64) for cpu, name in raw.governors.items()},
        "clocks_mhz": _clocks(raw.clocks_khz),
        "temperatures_c": parse_temperatures(raw.thermal_zones),
        "throttling": None if throttling is None else dataclasses.asdict(throttling),
        "throttle_alerts": {printable(name, 64): bool(value) for name, value in alerts.items() if value is not None},
        "throttle_count": sum(count for count in counts.values() if count is not None) if counts else None,
        "load_average": list(parse_loadavg(raw.loadavg) or ()) or None,
    }


def parse_facts(line: FactsLine) -> dict[str, Any]:
    """What the board is, as values, and its state."""
    memory = parse_meminfo(line.meminfo)
    return {
        "device_tree_model": parse_device_tree_model(line.model),
        "cpu": parse_cpu_model(line.cpuinfo),
        "isa_features": list(parse_cpu_features(line.cpuinfo)),
        "machine": printable(line.machine),
        "kernel": printable(line.kernel),
        "power_mode": parse_power_mode(line.nvpmodel),
        "os": parse_os_release(line.os_release),
        "libc": printable(line.libc),
        "python": printable(line.python),
        "hostname": printable(line.hostname),
        "cpus": line.cpus,
        "affinity": list(line.affinity),
        "max_clocks_mhz": _clocks(line.max_clocks_khz),
        "ram_bytes": memory.get("MemTotal"),
        "available_bytes": memory.get("MemAvailable"),
        "swap_used_bytes": memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
        "unix_time_s": line.unix_time_s,
        "power_sensors": [printable(name, 250) for name in line.power_sensors],
        **parse_state(line.state),
    }


def _clocks(raw: dict[str, str]) -> dict[str, float]:
    clocks = {cpu: parse_clock_mhz(text) for cpu, text in raw.items()}
    return {cpu: clock for cpu, clock in clocks.items() if clock is not None}


def throttle_sample(raw: RawState, before: RawState, at_s: float) -> ThrottleSample:
    """The state at one moment of a run that began in the state `before`.

    The temperature is that of the hottest zone, the clock that of the fastest core. Throttling is told by the
    Raspberry Pi's firmware (bits 0 to 3), by Jetson's throttle alerts, or by the kernel's counters (of throttled
    cores, of Jetson's over-current events) having moved since `before`; a board that has none of them cannot tell.
    """
    state, start = parse_state(raw), parse_state(before)
    firmware = parse_throttled(raw.get_throttled)
    told = list(state["throttle_alerts"].values())
    if firmware is not None:
        told.append(firmware.now)
    if None not in (state["throttle_count"], start["throttle_count"]):
        told.append(state["throttle_count"] > start["throttle_count"])
    throttled = any(told) if told else None
    return ThrottleSample(
        at_s=at_s,
        temperature_c=max(state["temperatures_c"].values(), default=None),
        clock_mhz=max(state["clocks_mhz"].values(), default=None),
        throttled=throttled,
    )


def state_notes(
    before: dict[str, Any], after: dict[str, Any], states: Sequence[ThrottleSample], power_asked: bool = False
) -> tuple[str, ...]:
    """What of the board's state a reader of the figures must know, in words.

    Args:
        before: what `parse_facts` gave before the passes.
        after: the same after them.
        states: the states during the timed pass.
        power_asked: whether a meter was looked for.
    """
    notes = []
    if any(state.throttled for state in states):
        notes.append("the board throttled during the timed pass: these are not burst figures")
    load = before["load_average"]
    if load and load[0] > BUSY_SHARE * max(before["cpus"], 1):
        notes.append(
            f"other work kept the board busy: load average {load[0]:.2f} on {before['cpus']} cores at the start"
        )
    if after["swap_used_bytes"] > before["swap_used_bytes"]:
        grown = (after["swap_used_bytes"] - before["swap_used_bytes"]) / 2**20
        notes.append(f"the board swapped meanwhile ({grown:.0f} MiB)")
    if before["governors"] != after["governors"]:
        notes.append("the frequency governor changed meanwhile")
    if before["power_sensors"] and not power_asked:
        notes.append(f"power was not measured, though sensors are there: {', '.join(before['power_sensors'])}")
    return tuple(notes)


def matches_profile(facts: dict[str, Any], session: Session, profile: DeviceProfile) -> tuple[bool, str]:
    """Whether the board is of the profile's kind; where not, why.

    Args:
        facts: what `parse_facts` gave.
        session: how the board is reached.
        profile: the kind in question.
    """
    if facts.get("emulated"):
        return False, f"{session.name} is emulated: its latencies say nothing of a {profile.title}"
    match = profile.match
    if match.this_machine:
        if session.is_local:
            return True, ""
        return False, f"profile {profile.name} stands for the machine that edgekd runs on; {session.name} is another"
    model = facts.get("device_tree_model")
    if model is None:
        return False, f"{session.name} has no device-tree model, so it is no {profile.title}"
    if not any(model.startswith(prefix) for prefix in match.device_tree_models):
        return (
            False,
            f"{session.name} is '{model}', and profile {profile.name} is for {', '.join(match.device_tree_models)}",
        )
    ram = facts.get("ram_bytes")
    if match.ram_mib_min is None and match.ram_mib_max is None:
        return True, ""
    if ram is None:
        return False, f"{session.name} does not tell its RAM, by which profile {profile.name} knows its boards"
    mib = ram / 2**20
    if not (match.ram_mib_min or 0) <= mib <= (match.ram_mib_max or float("inf")):
        bounds = f"{match.ram_mib_min or 0} to {match.ram_mib_max or 'any'} MiB"
        return False, f"{session.name} has {mib:.0f} MiB of RAM, and profile {profile.name} is for {bounds}"
    return True, ""
