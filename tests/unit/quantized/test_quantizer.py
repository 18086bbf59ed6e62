import pytest
import torch

from edgekd.nn.quantized.quantizer import (
    ActivationQuantizer,
    bias_steps,
    quantize_bias,
    quantize_weight,
    weight_scale,
)


def observed(*batches, activation="none", members=1):
    quantizer = ActivationQuantizer(activation, members).train()
    for batch in batches:
        quantizer(batch)
    return quantizer


def test_relu_range_starts_at_zero_so_that_saturation_clips():
    quantizer = observed(torch.tensor([-3.0, 0.5, 2.0]), activation="relu")
    assert quantizer.grid().zero_point == -128
    assert quantizer.eval()(torch.tensor([-1.0])).item() == 0.0
    assert quantizer.grid().scale == pytest.approx(2.0 / 255, rel=1e-4)


def test_relu6_range_ends_at_six_and_below_it_where_less_was_seen():
    wide = observed(torch.tensor([-3.0, 50.0]), activation="relu6")
    assert wide.grid().scale == pytest.approx(6.0 / 255, rel=1e-4)
    assert wide.eval()(torch.tensor([9.0])).item() == pytest.approx(6.0, rel=1e-4)
    assert observed(torch.tensor([0.0, 3.0]), activation="relu6").grid().scale == pytest.approx(3.0 / 255, rel=1e-4)


def test_early_batches_average_evenly():
    quantizer = observed(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 3.0]))
    assert quantizer.maximum.item() == pytest.approx(2.0)


def test_late_batches_move_the_range_by_the_momentum():
    quantizer = observed(*[torch.tensor([0.0, 1.0])] * 100)
    quantizer(torch.tensor([0.0, 2.0]))
    assert quantizer.maximum.item() == pytest.approx(1.01, abs=1e-4)


def test_ranges_stay_when_frozen_and_in_inference_mode():
    quantizer = observed(torch.tensor([-1.0, 1.0]))
    before = quantizer.grid()
    quantizer.eval()(torch.tensor([-50.0, 50.0]))
    quantizer.observing = False
    quantizer.train()(torch.tensor([-50.0, 50.0]))
    assert quantizer.grid() == before


def test_members_share_the_union_of_their_ranges():
    quantizer = ActivationQuantizer(members=2).train()
    quantizer(torch.tensor([-1.0, 1.0]), 0)
    quantizer(torch.tensor([0.0, 4.0]), 1)
    assert quantizer.grid().scale == pytest.approx(5.0 / 255, rel=1e-4)


def test_a_constant_zero_activation_has_a_grid():
    quantizer = observed(torch.zeros(4))
    assert quantizer.grid().scale > 0
    assert torch.equal(quantizer(torch.zeros(4)), torch.zeros(4))


def test_gradient_passes_inside_the_range_only():
    quantizer = observed(torch.tensor([0.0, 1.0]), activation="relu").eval()
    values = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    quantizer(values).sum().backward()
    assert values.grad.tolist() == [0.0, 1.0, 0.0]


def test_weights_are_symmetric_per_output_channel():
    weight = torch.tensor([[[[1.0, -2.0]]], [[[0.25, 0.5]]]])
    scale = weight_scale(weight, None, None)
    assert scale.tolist() == pytest.approx([2.0 / 127, 0.5 / 127])
    rounded = quantize_weight(weight, scale)
    assert rounded[0, 0, 0, 1].item() == pytest.approx(-2.0)


def test_a_dead_channel_still_holds_its_bias():
    weight, bias = torch.zeros(2, 3), torch.tensor([5.0, -7.0])
    weight[0] = 1.0
    scale = weight_scale(weight, bias, torch.tensor(1e-4))
    steps = bias_steps(bias, scale * 1e-4)
    assert steps.abs().max() < 2**31
    assert quantize_bias(bias, scale * 1e-4).tolist() == pytest.approx([5.0, -7.0], rel=1e-4)


def test_bias_lies_on_its_grid_and_keeps_its_gradient():
    bias = torch.tensor([0.123, -0.456], requires_grad=True)
    scale = torch.tensor([0.01, 0.1])
    rounded = quantize_bias(bias, scale)
    assert rounded.tolist() == pytest.approx([0.12, -0.5])
    rounded.sum().backward()
    assert bias.grad.tolist() == [1.0, 1.0]
