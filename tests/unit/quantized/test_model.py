import io

import numpy as np
import pytest
import torch

from edgekd.errors import BuildError
from edgekd.nn.quantized.model import quantize_model
from edgekd.nn.quantized.noise import layer_damage, layer_noise


def batches(student, count=4):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(16, *student.architecture.input_shape, generator=generator) for _ in range(count)]


def train(model, student, steps):
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    model.train()
    for batch in batches(student, steps):
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
    return model.eval()


def test_calibrated_model_is_close_to_the_float_one(image_student):
    model = quantize_model(image_student, batches(image_student)[0])
    model.calibrate(batches(image_student))
    model.eval()
    inputs = batches(image_student, 1)[0]
    with torch.no_grad():
        expected, found = image_student(inputs), model(inputs)
    noise = (found - expected).square().mean() / expected.var()
    assert noise < 0.05


def test_every_parameter_gets_a_gradient(signal_student):
    model = quantize_model(signal_student, batches(signal_student)[0]).train()
    model(batches(signal_student)[0]).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_training_is_deterministic(signal_student):
    first, second = (train(quantize_model(signal_student, batches(signal_student)[0]), signal_student, 4) for _ in "ab")
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_state_dict_round_trips_through_a_file(signal_student):
    model = train(quantize_model(signal_student, batches(signal_student)[0]), signal_student, 3)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    again = quantize_model(signal_student, batches(signal_student)[0]).eval()
    again.load_state_dict(torch.load(buffer, weights_only=True))
    inputs = batches(signal_student, 1)[0]
    assert torch.equal(model(inputs), again(inputs))


def test_frozen_ranges_do_not_move(signal_student):
    model = train(quantize_model(signal_student, batches(signal_student)[0]), signal_student, 2)
    model.freeze()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    train(model, signal_student, 2)
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


def test_inference_without_ranges_is_refused(signal_student):
    model = quantize_model(signal_student, batches(signal_student)[0]).eval()
    with pytest.raises(BuildError, match="no ranges were observed for input"):
        model(batches(signal_student)[0])
    with pytest.raises(BuildError, match="no ranges"):
        model.network()


def test_a_diverged_parameter_is_named(signal_student):
    model = quantize_model(signal_student, batches(signal_student)[0])
    model.calibrate(batches(signal_student))
    with torch.no_grad():
        model.layers["000_conv"].weight[0] = float("nan")
    with pytest.raises(BuildError, match=r"the weight of blocks\.0\.\S* \(conv\) is not finite"):
        model.network()


def test_network_holds_integers_on_the_grids_that_the_model_computes_with(image_student):
    model = quantize_model(image_student, batches(image_student)[0])
    model.calibrate(batches(image_student))
    network = model.network()
    for layer in network.layers:
        if layer.weight is None:
            continue
        assert layer.weight.dtype == np.int8 and np.abs(layer.weight).max() <= 127
        assert layer.bias.dtype == np.int32
        assert len(layer.weight_scale) == len(layer.weight)
    assert all(tensor.grid is not None for tensor in network.tensors.values())
    pools = [layer for layer in network.layers if layer.kind == "global_average_pool"]
    assert network.tensors[pools[0].output].grid == network.tensors[pools[0].inputs[0]].grid
    for layer in network.layers:
        grid = network.tensors[layer.output].grid
        if layer.activation == "relu6":
            assert grid.zero_point == -128 and 255 * grid.scale <= 6.0 + 1e-6


def test_evaluation_between_training_steps_leaves_the_ranges_alone(signal_student):
    model = train(quantize_model(signal_student, batches(signal_student)[0]), signal_student, 1)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(10 * batches(signal_student)[0])
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


def test_unrounded_model_is_the_folded_float_one(image_student):
    model = quantize_model(image_student, batches(image_student)[0])
    model.calibrate(batches(image_student))
    model.eval()
    inputs = batches(image_student, 1)[0]
    with torch.no_grad(), model.unrounded():
        torch.testing.assert_close(model(inputs), image_student(inputs), atol=1e-5, rtol=1e-4)
    assert not torch.equal(model(inputs), image_student(inputs))


def test_layer_noise_points_at_the_layer_that_is_hurt(image_student):
    model = quantize_model(image_student, batches(image_student)[0])
    model.calibrate(batches(image_student))
    inputs = batches(image_student, 1)[0]
    before = layer_noise(model, inputs)
    assert all(noise.sqnr_db > 10 for noise in before)
    hurt = "003_conv"
    with torch.no_grad():
        model.quantizers[hurt].scale.mul_(0.1)
    after = layer_noise(model, inputs)
    position = next(index for index, noise in enumerate(after) if noise.layer.startswith(hurt))
    assert [noise.sqnr_db for noise in after[:position]] == [noise.sqnr_db for noise in before[:position]]
    assert after[position].sqnr_db < before[position].sqnr_db - 6
    assert after[position].saturated > before[position].saturated + 0.05


def test_damage_points_at_the_layer_whose_rounding_does_it(image_student):
    model = quantize_model(image_student, batches(image_student)[0])
    model.calibrate(batches(image_student))
    model.eval()
    inputs = batches(image_student, 1)[0]
    before = layer_damage(model, inputs)
    assert len(before) == len(model.network().layers)
    hurt = model.network().layers[-1].name
    with torch.no_grad():
        model.quantizers[hurt.split(":")[0]].scale.mul_(0.1)
        expected = model(inputs)
    after = layer_damage(model, inputs)
    assert list(after.values()) == sorted(after.values(), reverse=True)
    assert after[hurt] > 10 * before[hurt]
    assert all(after[name] == before[name] for name in after if name != hurt)
    assert torch.equal(model(inputs), expected)
