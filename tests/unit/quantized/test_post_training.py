import numpy as np
import pytest
import torch
from torch import nn

from edgekd.nn.quantized.bias_correction import correct_biases
from edgekd.nn.quantized.equalization import equalize
from edgekd.nn.quantized.model import quantize_model
from edgekd.nn.quantized.observers import OBSERVERS, Histogram, _entropy, _mse, calibrate
from edgekd.nn.quantized.post_training import post_training_quantize


def depthwise_net(spread):
    """A network whose depthwise layers' channels differ in range by a factor of up to `spread`."""
    torch.manual_seed(0)

    def block(width):
        return [
            *(nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        ]

    model = nn.Sequential(
        *(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), *block(16), *block(16)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
    )
    model.train()
    with torch.no_grad():
        for _ in range(5):
            model(torch.randn(64, 2, 8, 8))
        for layer in model:
            if isinstance(layer, nn.BatchNorm2d):
                factors = torch.logspace(0, np.log10(spread), 16)[torch.randperm(16)]
                layer.weight.mul_(factors)
                layer.bias.mul_(factors)
        model[-1].weight.div_(spread / 3)
    return model.eval()


@pytest.fixture(scope="module")
def wide():
    return depthwise_net(60.0)


@pytest.fixture(scope="module")
def inputs():
    return torch.randn(256, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def error(model, reference, inputs):
    with torch.no_grad():
        return float((model.eval()(inputs) - reference(inputs)).square().mean())


@pytest.mark.parametrize("observer", OBSERVERS)
def test_every_observer_gives_a_model_that_computes_about_the_same(wide, inputs, observer):
    model = quantize_model(wide, inputs)
    calibrate(model, inputs.split(64), observer)
    with torch.no_grad():
        assert error(model, wide, inputs) < 0.1 * float(wide(inputs).var())
    assert model.network().tensors["input"].grid.scale > 0


def histogram_of(values, bins=2048):
    counts, edges = np.histogram(values, bins)
    return Histogram(counts.astype(float), edges)


@pytest.mark.parametrize("choose", [_mse, _entropy])
def test_a_far_outlier_does_not_set_the_range(choose):
    values = np.random.default_rng(0).normal(0, 1, 1_000_000)
    values[0] = 20.0
    low, high = choose(histogram_of(values))
    assert 2.0 < high < 10.0
    assert -6.0 < low < -2.0


def test_even_values_keep_their_whole_range():
    low, high = _mse(histogram_of(np.linspace(-1, 1, 100_000)))
    assert low == pytest.approx(-1, abs=0.03) and high == pytest.approx(1, abs=0.03)


def test_min_max_spans_all_batches_and_ema_their_mean(wide, inputs):
    batches = [0.1 * inputs, inputs]
    widest, mean = (quantize_model(wide, inputs) for _ in "ab")
    calibrate(widest, batches, "min-max")
    calibrate(mean, batches, "ema")
    span = float(inputs.max() - inputs.min())
    assert widest.network().tensors["input"].grid.scale * 255 == pytest.approx(span, rel=0.01)
    assert mean.network().tensors["input"].grid.scale * 255 == pytest.approx(span * 0.55, rel=0.01)


def test_equalization_changes_no_float_output_and_brings_channels_together(wide, inputs):
    model = quantize_model(wide, inputs)
    calibrate(model, [inputs], "min-max")
    before = error(model, wide, inputs)
    assert equalize(model, [inputs]) >= 4
    with torch.no_grad(), model.unrounded():
        torch.testing.assert_close(model(inputs), wide(inputs), rtol=1e-3, atol=1e-4)
        spans = model.activations(inputs)["001_conv"].abs().transpose(0, 1).flatten(1).amax(1)
    calibrate(model, [inputs], "min-max")
    assert spans.max() / spans.min() < 10
    assert error(model, wide, inputs) < 0.5 * before


def test_relu6_and_values_read_twice_are_left_alone(inputs):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1)
            self.third = nn.Conv2d(4, 4, 1)

        def forward(self, values):
            values = torch.relu(self.first(values))
            values = values + torch.nn.functional.relu6(self.second(values))
            return self.third(values).mean((2, 3))

    assert equalize(quantize_model(Residual().eval(), inputs), [inputs]) == 0


def test_bias_correction_takes_the_mean_shift_back(wide, inputs):
    model = quantize_model(wide, inputs)
    calibrate(model, [inputs], "min-max")
    with torch.no_grad():
        wanted = wide(inputs).mean(0)
        before = (model.eval()(inputs).mean(0) - wanted).abs().max()
        correct_biases(model, inputs)
        after = (model(inputs).mean(0) - wanted).abs().max()
    assert after < 0.5 * before, (before, after)


def test_a_correction_is_taken_back_with_the_rounding_it_was_made_for(wide, inputs):
    model = quantize_model(wide, inputs)
    calibrate(model, [inputs], "min-max")
    before = {key: layer.bias.clone() for key, layer in model.layers.items() if hasattr(layer, "bias")}
    correct_biases(model.eval(), inputs)
    assert any(not torch.equal(model.layers[key].bias, bias) for key, bias in before.items())
    copy = quantize_model(wide, inputs)
    copy.load_state_dict(model.state_dict())
    copy.keep_float([next(iter(before))])
    for key, bias in before.items():
        torch.testing.assert_close(copy.layers[key].bias, bias, rtol=1e-5, atol=1e-5)


def test_what_is_kept_is_closest_to_the_float_model(wide, inputs):
    found = post_training_quantize(wide, "wi8_ai8", inputs[:128].split(32), inputs[128:])
    assert set(found.divergence) == {*OBSERVERS, "equalization", "bias correction"}
    assert found.equalized
    plain = post_training_quantize(wide, "wi8_ai8", inputs[:128].split(32), inputs[128:], "ema")
    assert list(plain.divergence) == ["ema"] and not plain.equalized
    assert error(found.model, wide, inputs[128:]) < error(plain.model, wide, inputs[128:])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["wi8_ai16", "wi8", "fp16", "wi8_ai8_symmetric"])
def test_other_schemes_are_calibrated_too(wide, inputs, scheme):
    found = post_training_quantize(wide, scheme, inputs[:64].split(32), inputs[128:])
    assert found.model.network().scheme == scheme
    assert min(found.divergence.values()) < (0.5 if scheme.startswith("wi8_ai8") else 0.05)
