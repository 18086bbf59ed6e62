"""Accuracy by slice: what is flagged, and what a limit on the worst slice says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.slices import simultaneous, slice_accuracies
from edgekd.core.statistics import paired_difference_interval
from edgekd.core.verdicts import judge
from edgekd.records import Accuracy, Budget

EACH = 400
MASKS = {"class a": np.arange(2 * EACH) < EACH, "class b": np.arange(2 * EACH) >= EACH}


def answers(*wrong):
    """Right everywhere but for the first so many inputs of each class."""
    return tuple(bool(index >= count) for count in wrong for index in range(EACH))


def accuracy(**right):
    found = Accuracy(
        inputs=2 * EACH,
        **{name: sum(flags) / len(flags) for name, flags in right.items()},
        **{f"{name}_correct": flags for name, flags in right.items()},
    )
    return found.model_copy(update={"slices": slice_accuracies(found, MASKS)})


def verdict_of(found, limit):
    (verdict,) = judge(
        Budget(slice_accuracy_drop_max=limit), measurement=None, predicted={}, accuracy=found, file_size_bytes=None
    )
    return verdict


def test_a_slice_is_hurt_by_what_lies_wholly_below_zero():
    found = accuracy(
        teacher=answers(0, 0), scratch=answers(10, 10), student_fp32=answers(60, 10), student_int8=answers(60, 70)
    )
    first, second = found.slices
    assert (first.hurt_by, second.hurt_by) == (("distillation",), ("quantization",))
    assert first.distillation.value == pytest.approx(-50 / EACH)
    assert second.accuracy["student_int8"] == pytest.approx(1 - 70 / EACH)
    low, high = second.intervals["student_int8"]
    assert low < second.accuracy["student_int8"] < high


def test_a_student_from_scratch_that_was_kept_was_not_hurt_by_what_was_thrown_away():
    found = accuracy(
        teacher=answers(0, 0),
        scratch=answers(10, 10),
        distilled=answers(90, 90),
        student_fp32=answers(10, 10),
        student_int8=answers(10, 10),
    )
    assert [one.hurt_by for one in found.slices] == [(), ()]
    assert found.slices[0].distillation.value == pytest.approx(-80 / EACH)


@pytest.mark.parametrize(
    ("limit", "outcome", "named"),
    [(2, "missed", "class b"), (15, "inconclusive", "class b"), (30, "met", "class b")],
)
def test_the_worst_slice_decides_and_is_named(limit, outcome, named):
    found = accuracy(teacher=answers(0, 0), student_fp32=answers(10, 60), student_int8=answers(10, 60))
    verdict = verdict_of(found, limit)
    assert verdict.outcome == outcome
    assert f"worst slice: {named} ({EACH} inputs)" in verdict.reason
    assert verdict.value == pytest.approx(15.0)
    assert verdict.interval[0] < 15 < verdict.interval[1]
    assert verdict.margin == pytest.approx(limit - 15)


def test_without_slices_nothing_is_judged():
    assert verdict_of(Accuracy(student_int8=0.9, inputs=100), 5).outcome == "not_measured"


def test_a_slice_without_inputs_is_left_out():
    found = accuracy(teacher=answers(0, 0), student_int8=answers(0, 0))
    assert len(slice_accuracies(found, {**MASKS, "nobody": np.zeros(2 * EACH, bool)})) == 2


@given(st.integers(1, 60))
def test_intervals_for_more_slices_are_never_narrower(count):
    assert simultaneous(1) == pytest.approx(0.95)
    first, second = [True] * 40 + [False] * 10, [True] * 30 + [False] * 20
    low, high = paired_difference_interval(first, second, simultaneous(count))
    wider = paired_difference_interval(first, second, simultaneous(count + 1))
    assert wider[0] <= low < high <= wider[1]
