"""The figures of merit against scikit-learn, and the paired interval of their difference."""

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from edgekd.train.metrics import CLOSENESS, METRICS, gain_interval, metric_of

GENERATOR = torch.Generator().manual_seed(3)
OUTPUTS = torch.randn(200, 4, generator=GENERATOR)
LABELS = (OUTPUTS + torch.randn(200, 4, generator=GENERATOR) > 0.5).float()
VALUES = OUTPUTS + 0.5 * torch.randn(200, 4, generator=GENERATOR)


def test_metrics_equal_scikit_learns():
    said = (OUTPUTS > 0).numpy()
    expected = {
        "f1": reference.f1_score(LABELS.numpy(), said, average="macro"),
        "label_accuracy": (said == LABELS.numpy()).mean(),
        "average_precision": reference.average_precision_score(LABELS.numpy(), OUTPUTS.numpy(), average="macro"),
    }
    for name, value in expected.items():
        assert METRICS[name].value(OUTPUTS, LABELS) == pytest.approx(value, abs=1e-6)
    assert METRICS["r2"].value(OUTPUTS, VALUES) == pytest.approx(reference.r2_score(VALUES, OUTPUTS))
    assert METRICS["mae"].value(OUTPUTS, VALUES) == pytest.approx(reference.mean_absolute_error(VALUES, OUTPUTS))


def test_labels_and_values_by_which_nothing_can_be_judged_are_left_out():
    some, fixed = LABELS.clone(), VALUES.clone()
    some[:, 0], fixed[:, 0] = 0, 1
    for name, labels in (("f1", some), ("average_precision", some), ("r2", fixed)):
        assert METRICS[name].value(OUTPUTS, labels) == pytest.approx(METRICS[name].value(OUTPUTS[:, 1:], labels[:, 1:]))
        assert np.isnan(METRICS[name].value(OUTPUTS[:, :1], labels[:, :1]))


@pytest.mark.parametrize("name", ["f1", "label_accuracy", "average_precision", "r2", "mae"])
def test_the_gains_interval_lies_above_0_for_the_better_model_whichever_way_the_metric_goes(name):
    metric = METRICS[name]
    labels = VALUES if name in ("r2", "mae") else LABELS
    worse = OUTPUTS + 2 * torch.randn(OUTPUTS.shape, generator=torch.Generator().manual_seed(1))
    low, high = gain_interval(metric, OUTPUTS, worse, labels)
    assert 0 < low < metric.score(OUTPUTS, labels) - metric.score(worse, labels) < high
    assert gain_interval(metric, worse, OUTPUTS, labels) == pytest.approx((-high, -low))
    assert gain_interval(metric, worse, worse, labels) == (0, 0)


def test_accuracies_keep_the_interval_they_had():
    labels = OUTPUTS.argmax(1)
    assert metric_of("classes").name == "accuracy"
    low, high = gain_interval(METRICS["accuracy"], OUTPUTS, -OUTPUTS, labels)
    assert 0.9 < low < high <= 1


def test_a_model_is_as_close_to_itself_as_can_be():
    for words, closeness in CLOSENESS.values():
        assert words
        assert closeness(OUTPUTS, OUTPUTS) == 1 > closeness(OUTPUTS, -OUTPUTS)
