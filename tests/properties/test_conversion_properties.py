"""Both file formats compute what torch does, whatever the geometry of the window and whatever operators are chained."""

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from edgekd.convert.inference import run_model
from edgekd.convert.isolated import write_network
from edgekd.nn.quantized.model import quantize_model

quick = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
sizes = st.integers(1, 3)


@st.composite
def windows(draw):
    kernel = (draw(sizes), draw(sizes))
    padding = tuple(draw(st.integers(0, size // 2)) for size in kernel)
    return {"kernel_size": kernel, "stride": (draw(sizes), draw(sizes)), "padding": padding}


def check(model, inputs, directory):
    model = model.eval()
    with torch.no_grad():
        expected = model(inputs).numpy()
    quantized = quantize_model(model, inputs)
    quantized.calibrate([inputs])
    quantized.eval()
    floating = quantize_model(model, inputs, "fp32").network()
    with torch.no_grad():
        rounded = quantized(inputs).numpy()
    scale = quantized.network().output_scale()
    for name in ("model.tflite", "model.onnx"):
        path = directory / name
        write_network(floating, path)
        np.testing.assert_allclose(run_model(path, inputs.numpy()), expected, atol=1e-4, rtol=1e-4)
        write_network(quantized.network(), path)
        steps = (run_model(path, inputs.numpy(), "exact" if name.endswith("onnx") else "deployed") - rounded) / scale
        assert np.abs(np.rint(steps)).max() <= 1
        assert np.mean(np.rint(steps) == 0) >= 0.9


@quick
@given(
    window=windows(),
    groups=st.sampled_from([1, 2, 4]),
    dilation=st.integers(1, 2),
    height=st.integers(7, 9),
    activation=st.sampled_from([nn.Identity, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.SiLU]),
)
def test_convolutions(tmp_path, window, groups, dilation, height, activation):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 8, **window, groups=groups, dilation=dilation), activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    check(model, torch.randn(6, 4, height, 8), tmp_path)


@quick
@given(window=windows(), height=st.integers(7, 9), maxima=st.booleans(), ceil=st.booleans())
def test_pools(tmp_path, window, height, maxima, ceil):
    torch.manual_seed(0)
    pool = nn.MaxPool2d(**window, ceil_mode=ceil) if maxima else nn.AvgPool2d(**window)
    model = nn.Sequential(pool, nn.Flatten(), nn.LazyLinear(5))
    inputs = torch.randn(6, 3, height, 8)
    model(inputs)
    check(model, inputs, tmp_path)


@quick
@given(sides=st.tuples(*[st.integers(0, 3)] * 4), stride=sizes)
def test_padding_of_any_side_is_folded_into_the_convolution(tmp_path, sides, stride):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ZeroPad2d(sides), nn.Conv2d(2, 4, 3, stride), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    check(model, torch.randn(6, 2, 8, 8), tmp_path)
