"""Pruned networks are smaller, run, and keep their outputs; what cannot be taken out is said."""

import pytest
import torch
from torch import nn

from edgekd.errors import BuildError
from edgekd.nn.pruning import prune
from edgekd.nn.quantized.model import quantize_model


class Residual(nn.Module):
    """A sum, a gate and a joined branch: three ways for channels to depend on one another."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU6())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Sigmoid())
        self.branch = nn.Conv2d(16, 12, 1)
        self.head = nn.Linear(28, 5)

    def forward(self, inputs):
        stem = self.stem(inputs)
        summed = stem + self.depthwise(stem) * self.gate(stem)
        joined = torch.cat([summed, self.branch(summed).relu()], 1)
        return self.head(joined.mean((2, 3)))


@pytest.fixture
def example():
    return torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def residual():
    torch.manual_seed(0)
    return Residual().eval()


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_pruned_network_is_smaller_and_still_converts(residual, example, share):
    before = {name: value.clone() for name, value in residual.state_dict().items()}
    found = prune(residual, example, share)
    assert found.parameters == sum(parameter.numel() for parameter in found.model.parameters())
    assert found.parameters <= (1 - share) * found.parameters_before
    assert found.left_alone == ("head",)
    assert found.model(example).shape == residual(example).shape == (1, 5)
    assert all(torch.equal(value, before[name]) for name, value in residual.state_dict().items())
    quantized = quantize_model(found.model, example)
    quantized.calibrate([example])
    parameters = quantized.network().parameters
    # Batch norms are folded away, and every convolution has a bias.
    assert parameters <= found.parameters + 16


def test_the_weakest_channels_go():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3)).eval()
    weak = torch.arange(20) % 2 == 0
    with torch.no_grad():
        model[0].weight[weak] *= 1e-3
        model[0].bias[weak] *= 1e-3
        model[2].weight[:, weak] *= 1e-3
    inputs = torch.randn(64, 6)
    found = prune(model, inputs[:1], 0.4)
    strong = model[0].weight[~weak]
    assert all(any(torch.equal(row, kept) for kept in found.model[0].weight) for row in strong)
    torch.testing.assert_close(found.model(inputs), model(inputs), rtol=0, atol=1e-3)


def test_more_than_can_go_is_refused_with_figures(residual, example):
    with pytest.raises(BuildError, match=r"pruning takes out \d+ of \d+ parameters at most .* not 99%.*head"):
        prune(residual, example, 0.99)


def test_a_network_of_outputs_alone_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    with pytest.raises(BuildError, match=r"takes out 0 of 52 parameters .* channels of 1 cannot"):
        prune(model, torch.randn(1, 3, 4), 0.1)
