"""Which students of a space are predicted to meet the budget, and in which sizes to try them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekd.core.architecture import Architecture, Shape, TracedArchitecture, operator_list
from edgekd.core.costs import predict_all_costs, predict_mixed_costs
from edgekd.core.spaces import Choices, StudentSpace, compound_path, every_choice
from edgekd.core.statistics import at_95_percent
from edgekd.errors import InfeasibleBudgetError
from edgekd.records import Budget, Candidate, DeviceProfile, Estimate, Relaxation

LOWER_LIMITS = frozenset({"fps"})
"""Predictable constraints whose limit is a least value; all others are greatest values."""

NOT_CALIBRATED = frozenset({"file_size_kib", "peak_memory_mib"})
"""Predictable constraints whose interval a calibration of the profile leaves as it is."""

RUNG_RATIO = 3.0
"""Neighbouring sizes of the ladder differ by at least this factor in MACs."""

BATCH = 256
"""So many students are costed in one go: more at once are no quicker, and their operators fill memory."""


@dataclass(frozen=True)
class Proposal:
    """`feasible` candidates and the `first` few to train, fewest MACs first; `considered` how many there were."""

    feasible: tuple[Candidate, ...]
    first: tuple[Candidate, ...]
    considered: int


def excess(constraint: str, limit: float, estimate: Estimate) -> float:
    """By what factor the unfavourable end of an estimate is beyond the limit; at most 1 where it fits."""
    low, high = at_95_percent(estimate)
    return limit / max(low, 1e-12) if constraint in LOWER_LIMITS else high / limit


def candidate_of(
    space: StudentSpace, choices: Choices, native: Shape, outputs: int, profile: DeviceProfile, budget: Budget
) -> Candidate:
    """One student with the predicted value of every constraint that can be predicted for it."""
    return candidates_of(space, [choices], native, outputs, profile, budget)[0]


def candidates_of(
    space: StudentSpace,
    chosen: Sequence[Choices],
    native: Shape,
    outputs: int,
    profile: DeviceProfile,
    budget: Budget,
) -> list[Candidate]:
    """`candidate_of` of many choices in one go, which is far quicker than one by one."""
    architectures = [space.architecture(choices, native, outputs) for choices in chosen]
    lists = [operator_list(architecture) for architecture in architectures]
    shares = [float_share(architecture) for architecture in architectures]
    int8 = [operators for operators, share in zip(lists, shares, strict=True) if share is None]
    int8_costs = iter(predict_all_costs(profile, budget, int8, "wi8_ai8"))
    return [
        Candidate(
            space=space.name,
            choices=dict(choices),
            parameters=operators.parameters,
            macs=operators.macs,
            predicted=next(int8_costs) if share is None else predict_mixed_costs(profile, budget, operators, share),
        )
        for choices, operators, share in zip(chosen, lists, shares, strict=True)
    ]


def float_share(architecture: Architecture) -> float | None:
    """The share of multiply-accumulates that stay in float, where some operator has no int8 form; else None."""
    if isinstance(architecture, TracedArchitecture) and architecture.float_operators:
        return architecture.float_share
    return None


def propose(
    space: StudentSpace,
    native: Shape,
    outputs: int,
    profile: DeviceProfile,
    budget: Budget,
    fixed: Mapping[str, int],
    sizes: int,
) -> Proposal:
    """All students whose predicted costs meet the budget at the unfavourable end of their intervals.

    Args:
        space: the students to choose from.
        native: (C, H, W) of the task's inputs.
        outputs: number of classes.
        profile: the board.
        budget: the limits; those nothing predicts (accuracy, energy without a model) do not restrict.
        fixed: choices held fixed.
        sizes: how many sizes the ladder has at most.

    Raises:
        InfeasibleBudgetError: no student fits; names the nearest and the constraint that binds.
        ConfigurationError: a fixed choice is not one of the space.
    """
    limits = budget.constraints()
    feasible: list[Candidate] = []
    missing: list[Missing] = []
    chosen = list(every_choice(space, native, fixed))
    for start in range(0, len(chosen), BATCH):
        for candidate in candidates_of(space, chosen[start : start + BATCH], native, outputs, profile, budget):
            ratios = excesses(candidate, limits)
            if max(ratios.values(), default=0.0) <= 1:
                feasible.append(candidate)
            else:
                missing.append((ratios, candidate))
    considered = len(feasible) + len(missing)
    if not feasible:
        raise infeasible(space, missing, limits, profile)
    feasible.sort(key=lambda candidate: (candidate.macs, candidate.parameters, candidate.label))
    return Proposal(tuple(feasible), ladder(space, native, feasible)[:sizes], considered)


Missing = tuple[dict[str, float], Candidate]
"""A candidate that does not fit, with the factor by which it is beyond each limit."""


def excesses(candidate: Candidate, limits: Mapping[str, float]) -> dict[str, float]:
    """`excess` of every limit that something predicts, by constraint."""
    return {
        name: excess(name, limits[name], estimate) for name, estimate in candidate.predicted.items() if name in limits
    }


def needed(constraint: str, estimate: Estimate) -> float:
    """The limit at which an estimate would just fit."""
    low, high = at_95_percent(estimate)
    return low if constraint in LOWER_LIMITS else high


def frontier(missing: list[Missing], limits: Mapping[str, float]) -> tuple[Relaxation, ...]:
    """What each limit would have to become for some student to fit, were it relaxed alone.

    For each limit whose relaxing helps: of the students that meet all others, the one that needs the least. Where
    no student meets all others, only limits that no student meets are listed, and `reason` says which others bind.
    """
    found = []
    for name, limit in limits.items():
        judged = [(ratios, candidate) for ratios, candidate in missing if name in ratios]
        others_met = [pair for pair in judged if all(r <= 1 for other, r in pair[0].items() if other != name)]
        if not others_met and any(ratios[name] <= 1 for ratios, _ in judged):
            continue
        pool = others_met or judged
        if not pool:
            continue
        ratios, nearest = min(pool, key=lambda pair: (pair[0][name], pair[1].macs, pair[1].label))
        more = [other for other, ratio in ratios.items() if other != name and ratio > 1]
        estimate = nearest.predicted[name]
        reason = f"not enough alone: {', '.join(more)} must be relaxed too; " if more else ""
        found.append(
            Relaxation(
                constraint=name,
                limit=limit,
                needed=needed(name, estimate),
                candidate=nearest,
                reason=f"{reason}predicted {estimate.value:.4g}; {estimate.source}",
            )
        )
    return tuple(found)


def infeasible(
    space: StudentSpace, missing: list[Missing], limits: Mapping[str, float], profile: DeviceProfile
) -> InfeasibleBudgetError:
    """The error for a budget that no student meets: the nearest, and the frontier."""
    ratios, nearest = min(missing, key=lambda pair: max(pair[0].values()))
    binding = max(ratios, key=lambda name: ratios[name])
    limit, considered = limits[binding], len(missing)
    relaxed = frontier(missing, limits)
    lines = [
        f"  {one.constraint}: from {one.limit:g} to {one.needed:.4g}, with {one.candidate.label}"
        + (f" ({one.reason.partition(';')[0]})" if one.reason.startswith("not enough") else "")
        for one in relaxed
    ]
    estimate = nearest.predicted[binding]
    low, high = at_95_percent(estimate)
    return InfeasibleBudgetError(
        f"no student of {space.name} ({considered} considered) is predicted to meet the budget on {profile.name}.\n"
        f"  nearest: {nearest.label} ({nearest.parameters} parameters, {nearest.macs / 1e6:.3f} MMACs)\n"
        f"  binding: {binding} limit {limit:g}, predicted {estimate.value:.4g} "
        f"(95 % interval {low:.4g} to {high:.4g})\n"
        f"  from: {estimate.source}\n"
        f"  relax {binding} to {low if binding in LOWER_LIMITS else high:.4g}"
        f"{'' if binding in NOT_CALIBRATED else ', or calibrate the profile for a narrower interval'}\n"
        f"what each constraint costs, relaxed alone (accuracy is not known before training):\n" + "\n".join(lines),
        relaxed,
    )


def ladder(space: StudentSpace, native: Shape, feasible: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Feasible sizes, smallest first, each at least `RUNG_RATIO` times the MACs of the one before.

    The sizes lie on the path where all dimensions grow together, because without training nothing else tells two
    students of one cost apart. Where too few of the path are feasible, all feasible students take part.
    """
    dimensions = space.dimensions(native)
    path = [tuple(choices.values()) for choices in compound_path(dimensions)]
    on_path = [candidate for candidate in feasible if tuple(candidate.choices[name] for name in dimensions) in path]
    rungs: list[Candidate] = []
    for candidate in on_path or feasible:
        if not rungs or candidate.macs >= RUNG_RATIO * rungs[-1].macs:
            rungs.append(candidate)
    return tuple(rungs)
