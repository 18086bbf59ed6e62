import numpy as np
import pytest
import torch

from edgekd.train.calibration import expected_calibration_error, fit_scaling


def overconfident(count=4000, classes=5, seed=0):
    """Logits whose labels were drawn from the softmax of a third of them."""
    generator = torch.Generator().manual_seed(seed)
    logits = 6 * torch.randn(count, classes, generator=generator)
    labels = torch.multinomial((logits / 3).softmax(1), 1, generator=generator)[:, 0]
    return logits, labels


def test_ece_equals_its_definition():
    logits, labels = overconfident(500)
    probabilities = logits.softmax(1).numpy()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    bins = np.minimum((confidence * 15).astype(int), 14)
    expected = sum((bins == b).mean() * abs(confidence[bins == b].mean() - right[bins == b].mean()) for b in set(bins))
    assert expected_calibration_error(logits, labels) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("how", ["temperature", "vector"])
def test_scaling_finds_the_temperature_and_lowers_the_error(how):
    logits, labels = overconfident()
    scale, shift = fit_scaling(logits, labels, how)
    torch.testing.assert_close(scale, torch.full((5,), 1 / 3), rtol=0.15, atol=0)
    assert expected_calibration_error(logits * scale + shift, labels) < expected_calibration_error(logits, labels) / 4
    if how == "temperature":
        assert (shift == 0).all()
        assert (scale == scale[0]).all()
