"""Measures two model files in turn, a fresh process each: A B B A A B B A and so on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.board.connection.session import Session
from edgekd.board.measuring.agent_client import Agent, facts_line
from edgekd.board.measuring.facts import parse_facts, state_notes, throttle_sample
from edgekd.board.measuring.measure import RANDOM_SEED, BoardModel, board_name
from edgekd.board.measuring.timed_pass import Disturbed, Progress, Share, TimedPass, contention_of, one_process
from edgekd.board.provisioning.provision import RuntimeEnvironment
from edgekd.core.board_output import printable
from edgekd.core.comparison import LOOKS, median_ratio, turns
from edgekd.errors import EXIT_MET, EXIT_UNDECIDED, BoardError
from edgekd.records import MeasurementPlan
from edgekd.records.comparison import ComparedSide, Comparison, MedianRatio

MOST_PAIRS = 2 * LOOKS[-1]


@dataclass(slots=True)
class Contender:
    """One of the two: its file on the board, what runs it, how; and what its processes gave."""

    environment: RuntimeEnvironment
    model: BoardModel
    plan: MeasurementPlan
    inputs: str | None
    timed: TimedPass


def compare(
    session: Session,
    first: Contender,
    second: Contender,
    say: Progress,
    disturbed: Disturbed | None = None,
) -> Comparison:
    """Time two models in turn until it is decided which is faster, or the plan's `max_seconds` of running are over.

    Each process runs its share of the plan. A pair in which others disturbed a process too much is made up for by
    another, where undisturbed pairs are enough without it.

    Raises:
        BoardError: the board failed, or the link.
        BuildError: a model is not the one that was built, or its runtime does not load it.
    """
    plan, sides = first.plan, {"A": first, "B": second}
    agents = {name: Agent(session, side.environment.python, side.environment.site) for name, side in sides.items()}
    before = facts_line(agents["A"])
    spoilt: set[int] = set()
    pair, found = 0, None
    while pair < MOST_PAIRS:
        quiet = pair - len(spoilt)
        over = first.timed.timed_ns + second.timed.timed_ns >= plan.max_seconds * 1e9
        if quiet in LOOKS or (over and quiet >= 2):
            found = _ratio(first, second, spoilt)
            if found.verdict != "undecided" or over:
                break
        if over and pair >= plan.processes:
            break
        for name in turns(pair + 1)[-2:]:
            side = sides[name]
            say(f"pair {pair + 1}: {side.model.name}")
            one_process(agents[name], _job(side), side.plan, side.timed, pair, _silent, _share(plan))
            own = [side.timed.contention[pair]] if pair in side.timed.contention else []
            taken = contention_of(own, side.timed.timed_ns, before.cpus)
            if disturbed is not None and taken is not None and disturbed(taken):
                spoilt.add(pair)
        pair += 1
    if pair - len(spoilt) < LOOKS[0]:
        spoilt = set()
    found = _ratio(first, second, spoilt)
    return _comparison(session, (first, second), found, turns(pair), len(spoilt), (before, facts_line(agents["A"])))


def _share(plan: MeasurementPlan) -> Share:
    seconds = plan.min_seconds / plan.processes
    return Share(math.ceil(plan.min_runs / plan.processes), seconds, max(seconds, plan.max_seconds / plan.processes))


def _silent(message: str) -> None:
    """What a single process tells is too much beside the pairs."""


def _job(side: Contender) -> dict[str, Any]:
    return {
        "runtime": side.plan.runtime,
        "model": side.model.remote,
        "model_sha256": side.model.sha256,
        "threads": side.plan.threads,
        "inputs": side.inputs,
        "seed": RANDOM_SEED,
        "provider": side.plan.provider,
        "pin_clocks": side.plan.pin_clocks,
    }


def _medians(side: Contender, spoilt: set[int]) -> list[float]:
    return [statistics.median(group) for group in side.timed.by_process(without=spoilt)]


def _ratio(first: Contender, second: Contender, spoilt: set[int]) -> MedianRatio:
    return median_ratio(_medians(first, spoilt), _medians(second, spoilt))


def _comparison(
    session: Session,
    sides: Sequence[Contender],
    found: MedianRatio,
    order: str,
    spoilt: int,
    facts: tuple[Any, Any],
) -> Comparison:
    before, after = parse_facts(facts[0]), parse_facts(facts[1])
    states = tuple(throttle_sample(state, facts[0].state, 0.0) for side in sides for state in side.timed.states)
    notes = list(state_notes(before, after, states, power_asked=True))
    if spoilt:
        notes.append(f"others disturbed {spoilt} pairs: they were made up for and are not judged")
    return Comparison(
        board=board_name(session, before),
        plan=sides[0].plan,
        first=_side(session, sides[0]),
        second=_side(session, sides[1]),
        order=order,
        median_ratio=found,
        disturbed_pairs=spoilt,
        facts={"before": before, "after": after},
        notes=tuple(notes),
        exit_code=EXIT_UNDECIDED if found.verdict == "undecided" else EXIT_MET,
    )


def _side(session: Session, side: Contender) -> ComparedSide:
    timed = side.timed
    if timed.loaded is None:
        raise BoardError(f"{session.name}: the agent did not tell what ran {side.model.name}")
    return ComparedSide(
        model=side.model.name,
        sha256=side.model.sha256,
        runtime=side.plan.runtime,
        runtime_version=side.environment.runtime_version,
        provider=printable(timed.loaded.provider, 100),
        medians_ms=tuple(_medians(side, set())),
        samples_ms=tuple(duration / 1e6 for duration in timed.durations_ns),
        sample_processes=tuple(timed.processes),
    )
