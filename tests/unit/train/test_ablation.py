"""Each objective alone and all together, over seeds."""

import pytest
from digits_task import Quiet, load, recipe

from edgekd.pipeline.distillation.ablation import ablate, paired_t_interval, variants
from edgekd.pipeline.distillation.distill import distill_task
from edgekd.records import FitNet, Hard, Hinton


def test_features_stand_beside_the_labels_and_the_rest_alone():
    found = variants((Hard(weight=0.3), Hinton(weight=0.5, weight_end=0.1), FitNet(weight=0.2)))
    assert list(found) == ["hinton alone", "hard + fitnet", "combined"]
    assert found["hinton alone"] == (Hinton(weight=1.0),)
    assert found["hard + fitnet"] == (Hard(), FitNet(weight=0.2))


def test_the_interval_is_that_of_a_paired_t_test():
    stats = pytest.importorskip("scipy.stats")
    gains = [0.02, 0.035, -0.01, 0.015]
    test = stats.ttest_1samp(gains, 0.0).confidence_interval(0.95)
    assert paired_t_interval(gains) == pytest.approx((test.low, test.high))
    assert paired_t_interval([0.02]) is None


def test_every_variant_runs_with_every_seed_and_one_teacher():
    first = distill_task(recipe(epochs=2), load(), Quiet())
    found = ablate(first.teaching, first.design, first.recipe.distill, 2)
    assert found.seeds == (0, 1)
    assert [row.name for row in found.rows] == ["scratch", "hinton alone", "combined"]
    scratch, _, combined = found.rows
    assert combined.accuracies[0] == first.result.accuracy
    assert scratch.accuracies[0] == first.result.scratch_accuracy
    assert combined.gain == pytest.approx(combined.mean - scratch.mean)
    assert combined.gain_interval[0] <= combined.gain <= combined.gain_interval[1]
