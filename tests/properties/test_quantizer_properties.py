import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.nn.quantized.quantizer import ActivationQuantizer, quantize_weight, weight_scale

magnitudes = st.floats(min_value=1e-3, max_value=1e3)


def observed(low, high, activation="none"):
    quantizer = ActivationQuantizer(activation).train()
    quantizer(torch.tensor([low, high]))
    return quantizer.eval()


@given(low=magnitudes, high=magnitudes, activation=st.sampled_from(["none", "relu", "relu6"]))
def test_zero_lies_on_every_grid(low, high, activation):
    quantizer = observed(-low, high, activation)
    assert quantizer(torch.zeros(1)).item() == 0.0
    assert quantizer.grid().zero_point % 2 == 0


@given(low=magnitudes, high=magnitudes, seed=st.integers(0, 1000))
def test_rounding_is_idempotent_and_within_a_step_inside_the_range(low, high, seed):
    quantizer = observed(-low, high)
    values = torch.empty(64).uniform_(-low, high, generator=torch.Generator().manual_seed(seed))
    rounded = quantizer(values)
    assert torch.equal(quantizer(rounded), rounded)
    # Half a step of rounding, and one more at the ends for the even zero point.
    assert (rounded - values).abs().max() <= 1.51 * quantizer.grid().scale


@settings(max_examples=50)
@given(seed=st.integers(0, 1000), spread=st.floats(min_value=1e-3, max_value=1e3))
def test_weights_round_to_at_most_half_a_step_in_each_channel(seed, spread):
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(seed)) * spread
    scale = weight_scale(weight, None, None)
    error = (quantize_weight(weight, scale) - weight).abs().flatten(1).amax(1)
    assert (error <= 0.5001 * scale).all()
