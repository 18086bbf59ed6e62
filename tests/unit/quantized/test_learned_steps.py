"""Learned steps: gradients as in the papers, and grids that the files can hold."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from edgekd.convert.inference import run_model
from edgekd.convert.isolated import write_network
from edgekd.nn.quantized.layers import WeightedLayer
from edgekd.nn.quantized.learned_steps import LearnedQuantizer, learn_steps, settle_steps
from edgekd.nn.quantized.model import quantize_model
from edgekd.nn.quantized.quantizer import ActivationQuantizer
from edgekd.nn.quantized.weight_steps import gradient_scale
from edgekd.records import Quantization, Training
from edgekd.tasks import Development, Split
from edgekd.train.distill import train_quantized


def straight(exact):
    return exact + (torch.round(exact) - exact).detach()


def learned(low, high, activation="none", symmetric=False):
    observed = ActivationQuantizer(activation, symmetric=symmetric)
    observed.set_range(low, high)
    return LearnedQuantizer(observed).train()


@pytest.mark.parametrize(
    ("activation", "symmetric", "low"), [("none", False, -1.0), ("relu", False, 0.0), ("none", True, -1.5)]
)
def test_gradients_are_those_of_the_papers(activation, symmetric, low):
    quantizer = learned(low, 1.5, activation, symmetric)
    values = torch.linspace(-3, 3, 240).reshape(2, 120).requires_grad_()
    weights = torch.randn(2, 120, generator=torch.Generator().manual_seed(0))
    (quantizer(values) * weights).sum().backward()

    # The papers' formula, written with straight-through rounding, for the grid that is in use.
    grid = quantizer.grid()
    origin = 0 if symmetric else quantizer.lowest
    step = torch.tensor(grid.scale, requires_grad=True)
    offset = torch.tensor(grid.scale * (origin - grid.zero_point), requires_grad=True)
    inputs = values.detach().clone().requires_grad_()
    level = straight((inputs - offset) / step).clamp(quantizer.lowest - origin, quantizer.highest - origin)
    (((level * step) + offset) * weights).sum().backward()

    factor = 1 / math.sqrt(120 * (quantizer.highest - origin))
    torch.testing.assert_close(values.grad, inputs.grad, rtol=1e-5, atol=1e-7)
    # A step is its start times the exponential of the parameter, which begins at 0.
    assert quantizer.log_step.grad.item() == pytest.approx(step.grad.item() * factor * quantizer.start, rel=1e-3)
    if activation == "none" and not symmetric:
        extent = quantizer.start * 255
        assert quantizer.shift.grad.item() == pytest.approx(offset.grad.item() * factor * extent, rel=1e-3)
    else:
        assert quantizer.shift is None


def test_a_weights_gradient_is_lsqs(image_student):
    inputs = torch.randn(8, *image_student.architecture.input_shape)
    model = quantize_model(image_student, inputs)
    model.calibrate([inputs])
    layer = next(layer for layer in model.layers.values() if isinstance(layer, WeightedLayer))
    original = layer.weight.detach().clone()
    learn_steps(model)
    log_step = layer.weight_step.log_step
    with torch.no_grad():
        log_step.fill_(-0.4)
    weights = torch.randn_like(original)
    scale = original.abs().flatten(1).amax(1) / 127 * math.exp(-0.4)
    (layer.weight_step.round(layer.weight, scale) * weights).sum().backward()

    step = (original.abs().flatten(1).amax(1) / 127 * math.exp(-0.4)).requires_grad_()
    per_channel = step.reshape(-1, 1, 1, 1)
    (straight(original / per_channel).clamp(-127, 127) * per_channel * weights).sum().backward()
    expected = step.grad * step.detach() * gradient_scale(original.numel(), 127)
    torch.testing.assert_close(log_step.grad, expected, rtol=1e-3, atol=1e-6)


@pytest.fixture(params=["image", "signal"])
def calibrated(request):
    student = request.getfixturevalue(f"{request.param}_student")
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(64, *student.architecture.input_shape, generator=generator)
    model = quantize_model(student, inputs)
    model.calibrate(inputs.split(16))
    return student, model.eval(), inputs


def train(model, student, inputs, steps=20, rate=3e-3):
    with torch.no_grad():
        wanted = student(inputs).softmax(1)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    model.train()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.kl_div(model(inputs).log_softmax(1), wanted, reduction="batchmean")
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_learning_starts_from_the_calibrated_model(calibrated):
    _, model, inputs = calibrated
    step = model.network().output_scale()
    with torch.no_grad():
        before = model(inputs)
        learn_steps(model)
        learning = model.train()(inputs)
        settle_steps(model)
        after = model.eval()(inputs)
    for outputs in (learning, after):
        # Training sums in float32, inference in whole steps: a half may fall to either side.
        steps = torch.round((outputs - before) / step).abs()
        assert steps.max() <= 1 and (steps == 0).float().mean() >= 0.97


def test_what_was_learned_is_an_ordinary_model(calibrated, tmp_path):
    student, model, inputs = calibrated
    untouched = copy.deepcopy(model)
    learn_steps(model)
    train(model, student, inputs)
    with torch.no_grad():
        # The first pass makes the grids that the last step of training moved; weights follow their outputs' grids.
        model.eval()(inputs)
        learning = model(inputs)
    settle_steps(model)
    with torch.no_grad():
        settled = model(inputs)
    # Training sums in float32, inference in whole steps: a half may fall to either side.
    steps = torch.round((settled - learning) / model.network().output_scale()).abs()
    assert steps.max() <= 1 and (steps == 0).float().mean() >= 0.9
    fresh = quantize_model(student, inputs)
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh.eval()(inputs), settled)
    moved = [
        key for key in model.quantizers if model.quantizers[key].grid().scale != untouched.quantizers[key].grid().scale
    ]
    assert len(moved) > len(model.quantizers) / 2


def test_learned_grids_keep_the_writers_rules(calibrated, tmp_path):
    student, model, inputs = calibrated
    learn_steps(model)
    train(model, student, inputs)
    settle_steps(model)
    model.freeze()
    network = model.eval().network()
    for key, quantizer in model.quantizers.items():
        grid = quantizer.grid()
        assert grid.zero_point % 2 == 0
        mantissa, _ = math.frexp(grid.scale)
        assert (mantissa * 65536) == round(mantissa * 65536), key
        if quantizer.activation != "none":
            assert grid.zero_point == -128
        if quantizer.activation == "relu6":
            assert grid.scale * 255 <= 6.0
    paths = [tmp_path / "model.tflite", tmp_path / "model.onnx"]
    for path in paths:
        write_network(network, path)
    with torch.no_grad():
        torch_logits = model(inputs).numpy()
    tflite, onnx = run_model(paths[0], inputs.numpy()), run_model(paths[1], inputs.numpy(), "exact")
    assert np.mean(tflite == onnx) >= 0.99
    assert np.mean(np.abs(torch_logits - tflite) <= 1.01 * network.output_scale()) >= 0.99


@pytest.mark.parametrize("extent", [0.3, 5.0])
def test_a_range_far_from_the_values_is_learned_away(extent):
    quantizer = learned(-extent, extent)
    values = torch.rand(4, 1000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    optimizer = torch.optim.Adam(quantizer.parameters(), 0.02)
    errors = []
    for _ in range(250):
        optimizer.zero_grad()
        error = (quantizer(values) - values).square().mean()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < errors[0] / 4
    grid = quantizer.settled().grid()
    assert -3.0 < grid.scale * (-128 - grid.zero_point) < -0.9
    assert 0.9 < grid.scale * (127 - grid.zero_point) < 3.0


def test_steps_hold_while_not_observing(calibrated):
    student, model, inputs = calibrated
    learn_steps(model)
    model.observe(False)
    grids = {key: quantizer.grid() for key, quantizer in model.quantizers.items()}
    train(model, student, inputs, 3)
    assert {key: quantizer.grid() for key, quantizer in model.quantizers.items()} == grids


def test_qat_learns_its_steps_and_leaves_an_ordinary_model(signal_student):
    generator = torch.Generator().manual_seed(5)
    shape = signal_student.architecture.input_shape
    inputs = torch.randn(128, *shape, generator=generator)
    with torch.no_grad():
        logits = signal_student(inputs)
    split = Split(inputs.numpy(), logits.argmax(1).numpy())
    model = quantize_model(signal_student, inputs)
    model.calibrate(inputs.split(32))
    recipe = Quantization(steps="learned", training=Training(epochs=2, learning_rate=3e-3, warmup_fraction=0.0))
    train_quantized(
        model,
        Development(split, split),
        shape,
        recipe,
        seed=0,
        device=torch.device("cpu"),
        on_progress=lambda message: None,
        float_logits=logits,
    )
    assert {type(quantizer) for quantizer in model.quantizers.values()} == {ActivationQuantizer}
    fresh = quantize_model(signal_student, inputs)
    fresh.load_state_dict(model.cpu().state_dict())
    assert fresh.eval().network().parameters == model.network().parameters
