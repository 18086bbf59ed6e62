"""What a search promises: every candidate fits, the same seed gives the same candidates, and work never costs less."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.core.architecture import operator_list
from edgekd.core.costs import predict_costs
from edgekd.core.latency_calibration import fit_operator_model
from edgekd.core.latency_features import Kernels
from edgekd.core.propose import LOWER_LIMITS, propose
from edgekd.core.sampled_students import sampled_students
from edgekd.core.search import Search, short_schedule
from edgekd.core.search_surrogate import Surrogate
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
    model = fit_operator_model(lists, times, HOST.latency_models[0], among=(Kernels(16),))
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


def fitting(space, profile, budget):
    """Every candidate that fits; none where nothing does."""
    try:
        return propose(SPACES[space], NATIVE[space], 10, profile, budget, {}, 6).feasible
    except InfeasibleBudgetError:
        return ()


def search_of(space, profile, budget, seed):
    return Search(SPACES[space].dimensions(NATIVE[space]), fitting(space, profile, budget), seed)


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
    def narrow(candidate):
        """Best at kernel 5 and depth 2, where no anchor lies, and the wider the better."""
        choices = candidate.choices
        return 0.9 - 0.02 * abs(choices["kernel"] - 5) - 0.03 * abs(choices["depth"] - 2) + 0.001 * choices["width"]

    search = search_of("ds-cnn", RPI4, RPI4.budget, 0)
    spread = search.ask(6)
    for candidate in spread:
        search.tell(candidate, narrow(candidate))
    for _ in range(8):
        for candidate in search.ask(4):
            search.tell(candidate, narrow(candidate))
    best_of_space = max(narrow(candidate) for candidate in propose_all().feasible)
    found = max(one.score for one in search.scored)
    assert found > 0.98 * best_of_space
    assert found > max(narrow(candidate) for candidate in spread)


def test_the_first_candidates_fill_the_budget_and_differ():
    macs = sorted(candidate.macs for candidate in propose_all().feasible)
    for seed in range(3):
        asked = search_of("ds-cnn", RPI4, RPI4.budget, seed).ask(6)
        assert min(candidate.macs for candidate in asked) > 0.7 * macs[len(macs) // 2]
        for name in ("window", "kernel", "width", "depth"):
            assert len({candidate.choices[name] for candidate in asked}) > 1


def test_a_lucky_score_is_drawn_towards_what_like_candidates_got():
    fitting = [one for one in propose_all().feasible if one.choices["stem_stride"] == 1]
    candidates, unseen = fitting[::12][:24], fitting[5::40]

    def true(candidate):
        return 0.7 + 0.02 * candidate.choices["width"] / 8 + 0.01 * candidate.choices["depth"]

    noise = np.random.default_rng(0).normal(0, 0.02, len(candidates))
    scored = [(one, true(one) + error) for one, error in zip(candidates, noise, strict=True)]
    surrogate = Surrogate(SPACES["ds-cnn"].dimensions(NATIVE["ds-cnn"]), scored)
    left = surrogate.expected(candidates) - [true(one) for one in candidates]
    assert np.sqrt(np.mean(left**2)) < 0.9 * np.sqrt(np.mean(noise**2))
    assert np.corrcoef(surrogate.expected(unseen), [true(one) for one in unseen])[0, 1] > 0.9


def propose_all():
    return propose(SPACES["ds-cnn"], NATIVE["ds-cnn"], 10, RPI4, RPI4.budget, {}, 6)


def test_a_budget_nothing_meets_gives_no_candidates_and_fixed_choices_hold():
    assert search_of("ds-cnn", RPI4, Budget(file_size_kib=0.1), 0).ask(5) == ()
    space = SPACES["ds-cnn"]
    held = propose(space, NATIVE["ds-cnn"], 10, RPI4, RPI4.budget, {"width": 16}, 6).feasible
    assert {candidate.choices["width"] for candidate in run(Search(space.dimensions(NATIVE["ds-cnn"]), held, 0))} == {
        16
    }


def test_a_budget_that_few_meet_still_gives_them_all():
    space, smallest = SPACES["inverted-residual"], sorted(propose_images().feasible, key=lambda one: one.macs)[:2]
    limits = Budget(file_size_kib=1.001 * max(one.predicted["file_size_kib"].high for one in smallest))
    fitting = propose_images(limits).feasible
    assert len(fitting) <= 16
    asked = run(Search(space.dimensions(NATIVE[space.name]), fitting, 0), rounds=len(fitting))
    assert {candidate.label for candidate in asked} == {candidate.label for candidate in fitting}


def propose_images(limits=RPI4.budget):
    return propose(SPACES["inverted-residual"], NATIVE["inverted-residual"], 10, RPI4, limits, {}, 6)


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
def test_a_short_run_is_a_third_of_the_whole_and_never_more(epochs):
    full = Training(epochs=epochs, learning_rate=1e-3)
    short = short_schedule(full)
    assert short.epochs == {1: 1, 3: 3, 6: 4, 40: 13}[epochs]
    assert (short == full) == (short.epochs == epochs)
