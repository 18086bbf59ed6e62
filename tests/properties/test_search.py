"""What a search promises: every candidate fits, the same seed gives the same candidates, and work never costs less."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.core.architecture import operator_list
from edgekd.core.calibration import fit_operator_model, sampled_students
from edgekd.core.costs import predict_costs
from edgekd.core.propose import LOWER_LIMITS, candidate_of, fits, propose
from edgekd.core.search import Search, halving_schedules, survivors
from edgekd.core.spaces import SPACES
from edgekd.core.statistics import at_95_percent
from edgekd.errors import InfeasibleBudgetError
from edgekd.load import load_profile
from edgekd.records import Budget, Training

NATIVE = {"ds-cnn": (6, 1, 128), "inverted-residual": (1, 28, 28)}
HOST = load_profile("host")
RPI4 = load_profile("rpi4")


def calibrated():
    """The host's profile with a tiled model fitted to what a made-up board takes for sampled students."""
    students = sampled_students(24, 3)
    lists = [operator_list(student.architecture()) for student in students]
    times = [0.001 + 0.02 * one.macs / 1e6 + 0.0004 * len(one.operators) for one in lists]
    model = fit_operator_model(lists, times, HOST.latency_models[0], tiles=(16,))
    return HOST.model_copy(update={"latency_models": (model.model_copy(update={"provenance": "measured"}),)})


PROFILES = {"prior": RPI4, "calibrated": calibrated()}


@st.composite
def budgets(draw):
    limits = {}
    if draw(st.booleans()):
        limits["latency_p90_ms"] = 10 ** draw(st.floats(-3, 1))
    if draw(st.booleans()):
        limits["latency_p99_ms"] = 10 ** draw(st.floats(-2, 1.5))
    if draw(st.booleans()):
        limits["peak_memory_mib"] = draw(st.floats(5, 20))
    if draw(st.booleans()):
        limits["file_size_kib"] = 10 ** draw(st.floats(0.5, 3))
    if draw(st.booleans()):
        limits["fps"] = 10 ** draw(st.floats(0, 5))
    return Budget(**limits)


def search_of(space, profile, budget, seed):
    limits = budget.constraints()
    return Search(
        SPACES[space].dimensions(NATIVE[space]),
        lambda choices: candidate_of(SPACES[space], choices, NATIVE[space], 10, profile, budget),
        lambda candidate: fits(candidate, limits),
        seed,
    )


def score(candidate):
    """A made-up accuracy: it grows with size, and prefers larger kernels."""
    return 1 - 1 / (1 + math.log10(candidate.macs)) + 0.01 * candidate.choices["kernel"]


def run(search, rounds=3, count=4):
    asked = []
    for _ in range(rounds):
        for candidate in search.ask(count):
            search.tell(candidate, score(candidate))
            asked.append(candidate)
    return asked


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(sorted(SPACES)), st.sampled_from(sorted(PROFILES)), budgets(), st.integers(0, 1000))
def test_every_candidate_meets_the_budget_on_its_upper_interval_and_is_asked_once(space, profile, budget, seed):
    asked = run(search_of(space, PROFILES[profile], budget, seed))
    for candidate in asked:
        for name, limit in budget.constraints().items():
            low, high = at_95_percent(candidate.predicted[name])
            assert low >= limit if name in LOWER_LIMITS else high <= limit
    assert len({candidate.label for candidate in asked}) == len(asked)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(sorted(SPACES)), st.integers(0, 1000))
def test_the_same_seed_asks_for_the_same_candidates(space, seed):
    first, second = (run(search_of(space, RPI4, RPI4.budget, seed)) for _ in range(2))
    assert first == second
    assert len(first) == 12


def test_children_come_closer_to_what_scores_well():
    search = search_of("ds-cnn", RPI4, RPI4.budget, 0)
    spread = search.ask(6)
    for candidate in spread:
        search.tell(candidate, score(candidate))
    for _ in range(6):
        for candidate in search.ask(4):
            search.tell(candidate, score(candidate))
    best_of_space = max(score(candidate) for candidate in propose_all().feasible)
    assert search.best(1)[0].score > 0.98 * best_of_space
    assert search.best(1)[0].score > max(score(candidate) for candidate in spread)


def propose_all():
    return propose(SPACES["ds-cnn"], NATIVE["ds-cnn"], 10, RPI4, RPI4.budget, {}, 6)


def test_a_budget_nothing_meets_gives_no_candidates_and_fixed_choices_hold():
    assert search_of("ds-cnn", RPI4, Budget(file_size_kib=0.1), 0).ask(5) == ()
    space, limits = SPACES["ds-cnn"], RPI4.budget.constraints()
    search = Search(
        space.dimensions(NATIVE["ds-cnn"]),
        lambda choices: candidate_of(space, choices, NATIVE["ds-cnn"], 10, RPI4, RPI4.budget),
        lambda candidate: fits(candidate, limits),
        0,
        {"width": 16},
    )
    assert {candidate.choices["width"] for candidate in run(search)} == {16}


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(SPACES)), st.sampled_from(sorted(PROFILES)), st.data())
def test_costs_never_fall_as_width_or_depth_grows(space, profile, data):
    dimensions = SPACES[space].dimensions(NATIVE[space])
    choices = {name: data.draw(st.sampled_from(values)) for name, values in dimensions.items()}
    for grown in ("width", "depth"):
        before: dict[str, float] = {}
        for value in sorted(dimensions[grown]):
            operators = operator_list(SPACES[space].architecture({**choices, grown: value}, NATIVE[space], 10))
            costs = predict_costs(PROFILES[profile], Budget(), operators, "wi8_ai8")
            now = {name: estimate.value for name, estimate in costs.items()}
            assert set(now) == {"latency_p90_ms", "peak_memory_mib", "file_size_kib"}
            for name, cost in before.items():
                assert now[name] >= cost * (1 - 1e-12), (name, grown, value)
            before = now


@settings(max_examples=8, deadline=None)
@given(budgets(), st.sampled_from(sorted(SPACES)))
def test_relaxing_a_budget_to_its_frontier_makes_it_feasible(budget, space):
    tight = budget.overridden_by(Budget(latency_p90_ms=0.02, file_size_kib=6))
    try:
        propose(SPACES[space], NATIVE[space], 10, RPI4, tight, {}, 6)
    except InfeasibleBudgetError as error:
        assert error.frontier
        for one in error.frontier:
            assert one.limit == tight.constraints()[one.constraint]
            if "not enough alone" in one.reason:
                continue
            slack = 1 - 1e-9 if one.constraint in LOWER_LIMITS else 1 + 1e-9
            relaxed = tight.overridden_by(Budget(**{one.constraint: one.needed * slack}))
            found = propose(SPACES[space], NATIVE[space], 10, RPI4, relaxed, {}, 6)
            assert one.candidate.label in {candidate.label for candidate in found.feasible}


@pytest.mark.parametrize("epochs", [1, 3, 6, 40])
def test_halving_grows_to_the_whole_schedule(epochs):
    full = Training(epochs=epochs, learning_rate=1e-3)
    schedules = halving_schedules(full, 3)
    assert schedules[-1] == full
    assert [one.epochs for one in schedules] == sorted(one.epochs for one in schedules)
    assert [survivors(count) for count in (1, 3, 4, 18)] == [1, 1, 2, 6]
