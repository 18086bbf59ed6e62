"""Every sum of two int8 values, through the runtimes themselves: they round all alike once the scales are settled."""

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.convert.divergence import LayerDifference
from edgekd.convert.inference import run_model
from edgekd.convert.isolated import write_network
from edgekd.nn.quantized.model import quantize_model
from edgekd.nn.quantized.network import Grid
from edgekd.nn.quantized.ties import disputed_sums, untied_scale

STEP = 1 / 128


class Sum(nn.Module):
    def __init__(self, scales):
        super().__init__()
        self.left, self.right = (nn.Conv2d(2, 1, 1, bias=False) for _ in "ab")
        with torch.no_grad():
            for index, (conv, scale) in enumerate(zip((self.left, self.right), scales, strict=True)):
                conv.weight.zero_()
                conv.weight[0, index] = scale / STEP

    def forward(self, inputs):
        return self.left(inputs) + self.right(inputs)


def every_pair():
    steps = torch.arange(-128, 128) * STEP
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"))[None]


def model_of(scales, output):
    """A model that adds the two channels, each on a grid of its own on which every integer is met."""
    model = quantize_model(Sum(scales).eval(), every_pair())
    model.calibrate([every_pair()])
    for key, scale in (("input", STEP), ("000_conv", scales[0]), ("001_conv", scales[1]), ("002_add", output)):
        model.quantizers[key].scale.fill_(scale)
        model.quantizers[key].zero_point.fill_(0)
    return model.eval()


def outputs(model, folder):
    found = []
    for suffix, kernels in (("onnx", "exact"), ("tflite", "deployed"), ("tflite", "reference")):
        path = folder / f"sum.{suffix}"
        write_network(model.network(), path)
        found.append(run_model(path, every_pair().numpy(), kernels).reshape(256, 256))
    with torch.no_grad():
        found.append(model(every_pair()).numpy().reshape(256, 256))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_runtimes_round_every_sum_alike(tmp_path, seed):
    random = np.random.default_rng(seed)
    scales = random.uniform(0.01, 0.02), random.uniform(0.002, 0.02)
    model = model_of(scales, float(np.float32(max(scales) * random.uniform(1.0, 1.6))))
    before = model.network().tensors["002_add"].grid.scale
    model.settle()
    after = model.network().tensors["002_add"].grid.scale
    assert 0.9999 < after / before < 1.013
    onnx, tflite, reference, fake_quantized = outputs(model, tmp_path)
    assert len(np.unique(onnx)) > 200
    np.testing.assert_array_equal(onnx, tflite)
    np.testing.assert_array_equal(onnx, reference)
    np.testing.assert_array_equal(onnx, fake_quantized)


def test_without_settling_they_do_not(tmp_path):
    # Half the sums of these scales are exact ties: to even in one runtime, up in the other.
    model = model_of((0.01, 0.01), 0.02)
    grids = [model.network().tensors[name].grid for name in ("000_conv", "001_conv", "002_add")]
    onnx, tflite, *_ = outputs(model, tmp_path)
    differing = int((onnx != tflite).sum())
    assert 0 < differing <= disputed_sums(*grids)


@pytest.mark.parametrize("shrink", [False, True])
def test_a_settled_scale_disputes_nothing_and_is_near(shrink):
    first, second = Grid(0.011, 4), Grid(0.007, -128)
    found = untied_scale(first, second, Grid(0.014, 10), shrink)
    assert disputed_sums(first, second, Grid(found, 10)) == 0
    assert (0.987 < found / 0.014 <= 1.0) if shrink else (1.0 <= found / 0.014 < 1.013)


@pytest.mark.parametrize("slope", [0.01, 0.1, 0.3])
def test_runtimes_compute_a_leaky_relu_alike(tmp_path, slope):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.LeakyReLU(slope), nn.Conv2d(8, 4, 1), nn.Flatten()).eval()
    inputs = torch.randn(64, 2, 8, 8)
    quantized = quantize_model(model, inputs)
    quantized.calibrate([inputs])
    network, found = quantized.eval().network().until("001_leaky_relu"), []
    for name, kernels in (("m.tflite", "deployed"), ("m.onnx", "exact")):
        write_network(network, tmp_path / name)
        found.append(run_model(tmp_path / name, inputs.numpy(), kernels))
    steps = np.rint((found[0].transpose(0, 3, 1, 2) - found[1]) / network.output_scale())
    # A slope of 3/256 leaves one tie, at -128 steps.
    assert np.mean(steps != 0) <= (0.003 if slope == 0.01 else 0.0) and np.abs(steps).max() <= 1
    assert network.layers[-1].attributes["slope"] == pytest.approx(slope, abs=1 / 256)
    copied = quantize_model(model, inputs)
    copied.load_state_dict(quantized.state_dict())
    assert copied.network().layers[1].attributes == network.layers[-1].attributes


def test_the_message_names_the_reference_kernel_that_rounds_twice():
    different = LayerDifference("001_conv:body", "conv", 0.98, 1, 0.0, -1.0, 1.0, 0.0, ("tflite", "tflite reference"))
    assert "001_conv:body" in different.describe() and "CONV_2D rounds twice" in different.describe()
    other = LayerDifference("001_conv:body", "conv", 0.98, 1, 0.0, -1.0, 1.0, 0.0, ("torch", "onnx"))
    assert "rounding of ties" in other.describe()
