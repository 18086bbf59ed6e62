"""What a search trains, in which order, and what it keeps; the training itself is made up here."""

import math
from types import SimpleNamespace

import pytest

from edgekd.core.propose import ladder, propose
from edgekd.core.search import short_schedule
from edgekd.core.spaces import SPACES
from edgekd.errors import InfeasibleBudgetError
from edgekd.load import load_profile
from edgekd.pipeline.fitting.search import SearchSpace, Selection
from edgekd.records import Training

NATIVE, RPI4 = (6, 1, 128), load_profile("rpi4")
SPACE = SPACES["ds-cnn"]
FULL = Training(epochs=30, learning_rate=1e-3)
VALIDATION = 2000


def searched(pool=6, grow=6):
    found = propose(SPACE, NATIVE, 7, RPI4, RPI4.budget, {}, 6)
    return SearchSpace(SPACE.dimensions(NATIVE), ladder(SPACE, NATIVE, found.feasible), found.feasible, grow, pool, 0)


def select(accuracy, choose, admit=tuple):
    """Select among students whose accuracy is known; also gives what was trained, with its epochs."""
    trained, remarks = [], []

    def distil(name, candidate, schedule):
        trained.append((name, candidate, schedule.epochs))
        return candidate, name

    def judge(student, candidate):
        right = round(accuracy(candidate) * VALIDATION)
        return (True,) * right + (False,) * (VALIDATION - right)

    quiet = SimpleNamespace(
        stage=lambda *told: None, update=lambda *told: None, remark=lambda *told: remarks.append(told)
    )
    selected = choose(Selection(distil, judge, "{} {}".format, FULL, quiet, quiet, admit))
    return selected, trained, remarks


def saturating(candidate):
    """Rises with size to 0.01 million multiply-accumulates and no further; each block costs a little."""
    return 0.5 + 0.1 * math.log10(min(candidate.macs, 10_000) / 1000) - 0.005 * candidate.choices["depth"]


def rising(candidate):
    return 0.5 + 0.1 * math.log10(candidate.macs / 1000)


def test_a_search_grows_first_and_looks_no_further_than_where_growing_stopped_paying():
    space = searched()
    selected, trained, _ = select(saturating, lambda selection: selection.halving(space))
    grown = [one for name, one, _ in trained if one in space.sizes]
    assert 3 <= len(grown) < len(space.sizes)
    assert [one.macs for one in grown] == sorted(one.macs for one in grown)
    most = max(one.macs for _, one, _ in trained)
    assert most < 0.2 * max(one.macs for one in space.candidates)
    assert selected.candidate.choices["depth"] == 1


def test_where_accuracy_keeps_rising_the_search_fills_the_budget():
    space = searched()
    selected, trained, _ = select(rising, lambda selection: selection.halving(space))
    assert {one.label for one in space.sizes} <= {one.label for _, one, _ in trained}
    assert selected.candidate.macs > 0.5 * max(one.macs for one in space.candidates)


def test_where_only_some_sizes_are_tried_the_search_goes_one_further_and_no_more():
    space = searched(grow=2)
    _, trained, _ = select(rising, lambda selection: selection.halving(space))
    assert [one for _, one, _ in trained[:2]] == list(space.sizes[:2])
    assert max(one.macs for _, one, _ in trained) <= space.sizes[2].macs


@pytest.mark.parametrize("pool", [1, 2, 6])
def test_short_runs_are_as_many_as_the_pool_and_one_student_is_trained_whole(pool):
    space = searched(pool=pool)
    selected, trained, remarks = select(rising, lambda selection: selection.halving(space))
    short = short_schedule(FULL).epochs
    assert [epochs for _, _, epochs in trained] == [short] * (len(space.sizes) + pool) + [FULL.epochs]
    assert trained[-1][1] == selected.candidate
    assert len({name for name, _, _ in trained}) == len(trained)
    assert remarks == [
        (
            trained[-1][0],
            {"chosen": trained[-1][0], "reason": f"the most promising after {len(trained) - 1} short runs"},
        )
    ]


def test_what_the_board_does_not_admit_is_not_trained_and_others_take_its_place():
    space = searched()
    asked = []

    def admit(candidates):
        asked.extend(candidates)
        return tuple(one for one in candidates if one.choices["kernel"] != 9)

    selected, trained, _ = select(rising, lambda selection: selection.halving(space), admit)
    kept = admit(list(asked))
    assert len(kept) < len(asked)
    assert {one.label for _, one, _ in trained} == {one.label for one in kept}
    assert selected.candidate in kept
    sizes = [one for one in kept if one in space.sizes[: space.grow]]
    assert len(trained) == len(sizes) + space.pool + 1


def test_a_board_that_admits_no_later_candidate_ends_the_search_with_the_best_size():
    space = searched(pool=4)
    selected, trained, _ = select(
        rising,
        lambda selection: selection.halving(space),
        lambda candidates: tuple(one for one in candidates if one in space.sizes),
    )
    assert len(trained) == len(space.sizes) + 1
    assert selected.candidate == space.sizes[-1]


def test_a_board_that_admits_no_size_is_an_infeasible_budget():
    with pytest.raises(InfeasibleBudgetError, match="each of the 5 sizes"):
        select(rising, lambda selection: selection.halving(searched()), lambda candidates: ())


def test_sizes_in_turn_are_trained_whole_until_two_are_no_better():
    space = searched()
    selected, trained, _ = select(saturating, lambda selection: selection.ladder(space.sizes))
    assert {epochs for _, _, epochs in trained} == {FULL.epochs}
    assert [one for _, one, _ in trained] == list(space.sizes[: len(trained)])
    assert selected.candidate == trained[-3][1]
