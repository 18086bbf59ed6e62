"""Levels of the students that a calibration timed, the part each plays in it, and the model that follows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from edgekd.core.architecture import operator_list
from edgekd.core.latency_calibration import fit_operator_model, validate, with_error_table
from edgekd.core.sampled_students import SampledStudent
from edgekd.core.statistics import percentile
from edgekd.errors import BoardError
from edgekd.records import TAIL_NAMES, LatencyModel, SampleLevel, TailName, TailRatio, TimedRound

LEAST_STUDENTS = 12
DOUBT_TO_EXCLUDE = 0.10
"""Where a student's fastest two rounds lie further apart than this, it is left out."""

HELD_OUT_EVERY = 3
BLOCKS, LEAST_IN_BLOCK = 10, 5
LEAST_ABOVE = 2
"""A percentile of a timing is known where so many of its runs lie above it."""

LEAST_TAILS = 12
"""Rounds that must know a percentile before the board's ratio is said."""


def quiet_median(durations: ArrayLike) -> float:
    """The least median among ten consecutive blocks of one process's durations, in their unit.

    What else a machine does comes in spells; the quietest tenth of a second knows least of it. Too few durations make
    fewer blocks.

    Raises:
        ValueError: there are no durations.
    """
    values = np.asarray(durations, float)
    if not len(values):
        raise ValueError("no durations: there is no median")
    blocks = np.array_split(values, max(1, min(BLOCKS, len(values) // LEAST_IN_BLOCK)))
    return float(min(np.median(block) for block in blocks))


def tails(durations: Sequence[float]) -> dict[TailName, float]:
    """The percentiles of one process's durations, in their unit, above which at least `LEAST_ABOVE` of them lie."""
    known = {
        name: percent for percent, name in TAIL_NAMES.items() if len(durations) * (100 - percent) >= 100 * LEAST_ABOVE
    }
    return {name: percentile(durations, percent) for name, percent in known.items()}


def tail_ratios(rounds: Sequence[TimedRound]) -> dict[TailName, TailRatio]:
    """Of each percentile over its student's level: the median over all rounds, and what nine in ten of them lie within.

    Rounds of students that are too noisy to be fitted count too: what disturbed them will disturb others. A percentile
    that fewer than `LEAST_TAILS` rounds have is left out.
    """
    found: dict[TailName, TailRatio] = {}
    cool = [one for one in rounds if not one.throttled]
    level = {
        one.student: level_of([other.median_ms for other in cool if other.student == one.student])[0] for one in cool
    }
    for name in TAIL_NAMES.values():
        ratios = [one.tails_ms[name] / level[one.student] for one in cool if name in one.tails_ms]
        if len(ratios) < LEAST_TAILS:
            continue
        value, low, high = (max(percentile(ratios, at), 1.0) for at in (50, 5, 95))
        found[name] = value, low, high
    return found


def level_of(rounds_ms: Sequence[float]) -> tuple[float, float]:
    """The level of interleaved rounds, in ms, and how far it can be trusted, a fraction.

    What else a machine does only ever adds time, so the level is the least of the rounds; the doubt is how far the
    next one lies above it. A single round is doubted wholly.
    """
    ordered = sorted(rounds_ms)
    return ordered[0], ordered[1] / ordered[0] - 1 if len(ordered) > 1 else math.inf


def sample_levels(students: Sequence[SampledStudent], rounds: Sequence[TimedRound]) -> tuple[SampleLevel, ...]:
    """Each measured student's level and part in the calibration: every third is held out."""
    levels = []
    for index, student in enumerate(students):
        found = [one.median_ms for one in rounds if one.student == index and not one.throttled]
        if not found:
            continue
        level, doubt = level_of(found)
        known = doubt if len(found) > 1 else None
        noisy = known is None or known > DOUBT_TO_EXCLUDE
        reason = "" if not noisy else "a single round" if known is None else f"fastest rounds {100 * doubt:.0f} % apart"
        role = "excluded" if noisy else "held_out" if index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else "fitted"
        levels.append(
            SampleLevel.model_validate(
                {
                    "label": student.label,
                    "level_ms": level,
                    "doubt": known,
                    "rounds": len(found),
                    "role": role,
                    "reason": reason,
                }
            )
        )
    return tuple(levels)


def calibrated_model(
    students: Sequence[SampledStudent], levels: Sequence[SampleLevel], about: LatencyModel
) -> LatencyModel:
    """The model of all students that count, with the error table of a fit to two thirds of them.

    Raises:
        BoardError: too few students could be measured well enough.
    """
    lists = {student.label: operator_list(student.architecture()) for student in students}
    fitted = [level for level in levels if level.role == "fitted"]
    held_out = [level for level in levels if level.role == "held_out"]
    used = [*fitted, *held_out]
    if len(used) < LEAST_STUDENTS or not held_out:
        raise BoardError(
            f"only {len(used)} students could be measured well enough (of {len(levels)}); "
            f"{LEAST_STUDENTS} are needed. Stop what else runs on the board, cool it, or give more --minutes"
        )

    def fit(chosen: Sequence[SampleLevel]) -> LatencyModel:
        return fit_operator_model([lists[one.label] for one in chosen], [one.level_ms for one in chosen], about)

    table = validate(
        fit(fitted),
        [one.label for one in held_out],
        [lists[one.label] for one in held_out],
        [one.level_ms for one in held_out],
    )
    return with_error_table(fit(used), table)
