"""Networks of depthwise and grouped convolutions, gates and shuffles."""

# ruff: noqa: D102 - every forward is what its class says

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.quantization.zoo_blocks import Activation, conv_bn, head


def mobilenet_v1() -> nn.Module:
    """Depthwise-separable convolutions (Howard et al. 2017)."""
    layers: list[nn.Module] = [conv_bn(1, 16, stride=2)]
    for channels, width, stride in ((16, 24, 1), (24, 32, 2), (32, 48, 1), (48, 64, 2)):
        layers += [conv_bn(channels, channels, 3, stride, channels), conv_bn(channels, width, 1)]
    return nn.Sequential(*layers, head(64))


class Squeeze(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018)."""

    def __init__(self, channels: int, gate: Activation, linear: bool = False) -> None:
        super().__init__()
        self.linear = linear
        hidden = max(channels // 4, 4)
        layer = nn.Linear if linear else (lambda inputs, outputs: nn.Conv2d(inputs, outputs, 1))
        self.body = nn.Sequential(layer(channels, hidden), nn.ReLU(), layer(hidden, channels), gate())

    def forward(self, inputs: Tensor) -> Tensor:
        if self.linear:
            gate = self.body(inputs.mean((2, 3)))
            return inputs * gate.view(gate.shape[0], gate.shape[1], 1, 1)
        return inputs * self.body(F.adaptive_avg_pool2d(inputs, 1))


class Inverted(nn.Module):
    """Inverted residual (Sandler et al. 2018), with squeeze-and-excitation where `gate` is given."""

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: int,
        stride: int,
        activation: Activation,
        gate: Activation | None = None,
        linear: bool = False,
        expansion: int = 3,
    ) -> None:
        super().__init__()
        hidden = channels * expansion
        self.body = nn.Sequential(
            conv_bn(channels, hidden, 1, activation=activation),
            conv_bn(hidden, hidden, kernel, stride, hidden, activation),
            *([Squeeze(hidden, gate, linear)] if gate else []),
            conv_bn(hidden, width, 1, activation=None),
        )
        self.residual = stride == 1 and channels == width

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.body(inputs) if self.residual else self.body(inputs)


def mobile(
    activation: Activation,
    gate: Activation | None = None,
    linear: bool = False,
    kernels: Sequence[int] = (3, 5, 3, 3),
    expansion: int = 3,
) -> nn.Module:
    shapes = ((12, 12, 1), (12, 20, 2), (20, 20, 1), (20, 28, 2))
    blocks = [
        Inverted(channels, width, kernel, stride, activation, gate, linear, expansion)
        for (channels, width, stride), kernel in zip(shapes, kernels, strict=True)
    ]
    return nn.Sequential(
        conv_bn(1, 12, stride=2, activation=activation), *blocks, conv_bn(28, 64, 1, activation=activation), head(64)
    )


def shuffle(inputs: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = inputs.size()
    grouped = inputs.view(batch, groups, channels // groups, height, width)
    return torch.transpose(grouped, 1, 2).contiguous().view(batch, -1, height, width)


class ShuffleV1(nn.Module):
    """Grouped pointwise convolutions and a channel shuffle (Zhang et al. 2017)."""

    def __init__(self, channels: int, groups: int = 4) -> None:
        super().__init__()
        self.groups = groups
        self.first = conv_bn(channels, channels, 1, groups=groups)
        self.depthwise = conv_bn(channels, channels, groups=channels, activation=None)
        self.last = conv_bn(channels, channels, 1, groups=groups, activation=None)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu(inputs + self.last(self.depthwise(shuffle(self.first(inputs), self.groups))))


class ShuffleV2(nn.Module):
    """Split, transform one half, join, shuffle (Ma et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            conv_bn(half, half, 1), conv_bn(half, half, groups=half, activation=None), conv_bn(half, half, 1)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        kept, changed = inputs.chunk(2, dim=1)
        return shuffle(torch.cat((kept, self.body(changed)), 1), 2)
