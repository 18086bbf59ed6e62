"""Every sum of two int8 values, through the runtimes themselves: they round all alike once the scales are settled."""

import numpy as np
import pytest
import torch
from torch import nn

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
    for suffix, kernels in (("onnx", "exact"), ("tflite", "deployed")):
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
    onnx, tflite, fake_quantized = outputs(model, tmp_path)
    assert len(np.unique(onnx)) > 200
    np.testing.assert_array_equal(onnx, tflite)
    np.testing.assert_array_equal(onnx, fake_quantized)


def test_without_settling_they_do_not(tmp_path):
    # Half the sums of these scales are exact ties: to even in one runtime, up in the other.
    model = model_of((0.01, 0.01), 0.02)
    grids = [model.network().tensors[name].grid for name in ("000_conv", "001_conv", "002_add")]
    onnx, tflite, _ = outputs(model, tmp_path)
    differing = int((onnx != tflite).sum())
    assert 0 < differing <= disputed_sums(*grids)


@pytest.mark.parametrize("shrink", [False, True])
def test_a_settled_scale_disputes_nothing_and_is_near(shrink):
    first, second = Grid(0.011, 4), Grid(0.007, -128)
    found = untied_scale(first, second, Grid(0.014, 10), shrink)
    assert disputed_sums(first, second, Grid(found, 10)) == 0
    assert (0.987 < found / 0.014 <= 1.0) if shrink else (1.0 <= found / 0.014 < 1.013)
