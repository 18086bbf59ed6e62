"""Small architectures of many families, written here from their papers' ideas, for the table in README.md.

Images are (1, 28, 28) with 10 classes, signals (6, 128) or (6, 1, 128) with 7. `ZOO` maps a name to a factory and
its input shape.
"""

# ruff: noqa: D102 - every forward is what its class says

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edgekd.core.spaces import space_named
from edgekd.nn.students import Student

IMAGE, SIGNAL, HIGH_SIGNAL = (1, 28, 28), (6, 128), (6, 1, 128)
Activation = Callable[[], nn.Module]


def conv_bn(
    channels: int,
    width: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = nn.ReLU,
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


def head(channels: int, classes: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class LeNet(nn.Module):
    """Convolutions, max pools, and a flatten of an image into linear layers (LeCun et al. 1998)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(nn.Linear(400, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(inputs), 1))


class AveragePoolNet(nn.Module):
    """Average pools between convolutions, with and without counted padding."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(1, 12), nn.AvgPool2d(2), conv_bn(12, 24), nn.AvgPool2d(3, 2, 1), conv_bn(24, 32), head(32)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(channels, width, stride=stride), conv_bn(width, width, activation=None))
        self.shortcut = (
            nn.Identity() if stride == 1 and channels == width else conv_bn(channels, width, 1, stride, activation=None)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu(self.body(inputs) + self.shortcut(inputs))


class ResNet(nn.Module):
    """A residual network, its stem pooled with padding as ImageNet's are."""

    def __init__(self, stem_pool: bool = False) -> None:
        super().__init__()
        stem: list[nn.Module] = [conv_bn(1, 12)]
        if stem_pool:
            stem.append(nn.MaxPool2d(3, 2, 1))
        self.stem = nn.Sequential(*stem)
        self.blocks = nn.Sequential(BasicBlock(12, 12, 1), BasicBlock(12, 24, 2), BasicBlock(24, 32, 2))
        self.head = head(32)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(inputs)))


class PreActivationBlock(nn.Module):
    """Batch norm and ReLU before each convolution (He et al. 2016b)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.body(inputs)


class Bottleneck(nn.Module):
    """Grouped 3x3 between pointwise convolutions (ResNeXt: Xie et al. 2017)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(channels, channels, 1),
            conv_bn(channels, channels, groups=groups),
            conv_bn(channels, channels, 1, activation=None),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(inputs + self.body(inputs))


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


class Fire(nn.Module):
    """Squeeze, then two expansions side by side (SqueezeNet: Iandola et al. 2016)."""

    def __init__(self, channels: int, squeezed: int, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.left, self.right = nn.Conv2d(squeezed, width, 1), nn.Conv2d(squeezed, width, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        squeezed = F.relu(self.squeeze(inputs))
        return torch.cat([F.relu(self.left(squeezed)), F.relu(self.right(squeezed))], 1)


def squeezenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(16, 8, 16),
        Fire(32, 8, 16),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(32, 12, 24),
        nn.Conv2d(48, 10, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
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


class Dense(nn.Module):
    """Each layer reads all before it (Huang et al. 2017)."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(channels + index * growth),
                nn.ReLU(),
                nn.Conv2d(channels + index * growth, growth, 3, padding=1, bias=False),
            )
            for index in range(layers)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in self.layers:
            inputs = torch.cat([inputs, layer(inputs)], 1)
        return inputs


class Inception(nn.Module):
    """Branches with different last activations, joined: their grids differ (Szegedy et al. 2015)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = conv_bn(channels, 12, 1)
        self.three = conv_bn(channels, 12, 3, activation=None)
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(channels, 8, 1, activation=nn.ReLU6))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.one(inputs), self.three(inputs), self.pooled(inputs)], 1)


class Autoencoder(nn.Module):
    """Encoder, decoder by upsampling, and the reconstruction's coarse mean as 49 outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(conv_bn(1, 12, stride=2), conv_bn(12, 16, stride=2))
        self.decoder = nn.Sequential(nn.Upsample(scale_factor=2), conv_bn(16, 12), nn.Upsample(scale_factor=2))
        self.output = nn.Conv2d(12, 1, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.flatten(F.avg_pool2d(self.output(self.decoder(self.encoder(inputs))), 4), 1)


class UNet(nn.Module):
    """Contraction, expansion by nearest upsampling, joined skips (Ronneberger et al. 2015), then a class head."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = conv_bn(1, 12), conv_bn(12, 20)
        self.bottom = conv_bn(20, 24)
        self.up2, self.up1 = conv_bn(44, 20), conv_bn(32, 12)
        self.head = head(12)

    def forward(self, inputs: Tensor) -> Tensor:
        first = self.down1(inputs)
        second = self.down2(F.max_pool2d(first, 2))
        bottom = self.bottom(F.max_pool2d(second, 2))
        raised = self.up2(torch.cat([F.interpolate(bottom, scale_factor=2.0), second], 1))
        return self.head(self.up1(torch.cat([F.interpolate(raised, scale_factor=2.0), first], 1)))


class TemporalBlock(nn.Module):
    """Causal dilated convolution with a residual (TCN: Bai et al. 2018)."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.pad = nn.ConstantPad1d((2 * dilation, 0), 0.0)
        self.conv = nn.Conv1d(channels, channels, 3, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + F.relu(self.norm(self.conv(self.pad(inputs))))


class TemporalNet(nn.Module):
    """A one-dimensional network: (N, 6, 128) signals as torch users write them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(6, 16, 5, 2, 2), nn.ReLU())
        self.blocks = nn.Sequential(*[TemporalBlock(16, dilation) for dilation in (1, 2, 4)])
        self.classifier = nn.Linear(16, 7)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.blocks(self.stem(inputs)).mean(-1))


def conv1d_pool_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(6, 16, 7, padding=3),
        nn.BatchNorm1d(16),
        nn.LeakyReLU(0.1),
        nn.MaxPool1d(4),
        nn.Conv1d(16, 24, 5, padding=2),
        nn.LeakyReLU(0.1),
        nn.MaxPool1d(4),
        nn.Flatten(),
        nn.Linear(24 * 8, 7),
    )


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU6(), nn.Linear(32, 10))


def plain_softmax() -> nn.Module:
    return nn.Sequential(conv_bn(1, 12, stride=2), conv_bn(12, 24, stride=2), head(24), nn.Softmax(1))


class TinyTransformer(nn.Module):
    """Patches, one encoder layer, a class head (Dosovitskiy et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 24, 7, 7)
        self.encoder = nn.TransformerEncoderLayer(24, 2, 48, 0.0, batch_first=True)
        self.classifier = nn.Linear(24, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.patches(inputs).flatten(2).transpose(1, 2)
        return self.classifier(self.encoder(tokens).mean(1))


class GatedRecurrent(nn.Module):
    """A GRU over time."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 16, batch_first=True)
        self.classifier = nn.Linear(16, 7)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.gru(inputs.transpose(1, 2))[0][:, -1])


def student(space: str, native: tuple[int, int, int], classes: int, **choices: int) -> nn.Module:
    dimensions = space_named(space).dimensions(native)
    chosen = {name: choices.get(name, values[-1]) for name, values in dimensions.items()}
    return Student(space_named(space).architecture(chosen, native, classes))


Factory = Callable[[], nn.Module]
ZOO: dict[str, tuple[Factory, Sequence[int]]] = {
    "ours: inverted residual": (
        lambda: student("inverted-residual", IMAGE, 10, width=8, depth=2, expansion=4, stem_stride=2, kernel=3),
        IMAGE,
    ),
    "ours: ds-cnn signal": (lambda: student("ds-cnn", HIGH_SIGNAL, 7, width=16, depth=3, kernel=5), HIGH_SIGNAL),
    "perceptron": (perceptron, IMAGE),
    "LeNet": (LeNet, IMAGE),
    "average pools": (AveragePoolNet, IMAGE),
    "ResNet": (ResNet, IMAGE),
    "ResNet, pooled stem": (lambda: ResNet(stem_pool=True), IMAGE),
    "ResNet, pre-activation": (
        lambda: nn.Sequential(conv_bn(1, 16, stride=2), PreActivationBlock(16), PreActivationBlock(16), head(16)),
        IMAGE,
    ),
    "ResNeXt": (lambda: nn.Sequential(conv_bn(1, 24, stride=2), Bottleneck(24, 4), Bottleneck(24, 4), head(24)), IMAGE),
    "MobileNetV1": (mobilenet_v1, IMAGE),
    "MobileNetV2": (lambda: mobile(nn.ReLU6), IMAGE),
    "MobileNetV3": (lambda: mobile(nn.Hardswish, nn.Hardsigmoid), IMAGE),
    "EfficientNet-Lite": (lambda: mobile(nn.ReLU6, kernels=(3, 5, 5, 5), expansion=4), IMAGE),
    "EfficientNet (SiLU, SE)": (lambda: mobile(nn.SiLU, nn.Sigmoid), IMAGE),
    "SE with linear layers": (lambda: mobile(nn.ReLU, nn.Sigmoid, linear=True), IMAGE),
    "SqueezeNet": (squeezenet, IMAGE),
    "ShuffleNetV1": (
        lambda: nn.Sequential(conv_bn(1, 24, stride=2), ShuffleV1(24), ShuffleV1(24), head(24)),
        IMAGE,
    ),
    "ShuffleNetV2": (
        lambda: nn.Sequential(conv_bn(1, 24, stride=2), ShuffleV2(24), ShuffleV2(24), head(24)),
        IMAGE,
    ),
    "DenseNet": (lambda: nn.Sequential(conv_bn(1, 16, stride=2), Dense(16, 8, 3), nn.ReLU(), head(40)), IMAGE),
    "Inception": (lambda: nn.Sequential(conv_bn(1, 16, stride=2), Inception(16), Inception(32), head(32)), IMAGE),
    "softmax output": (plain_softmax, IMAGE),
    "autoencoder": (Autoencoder, IMAGE),
    "U-Net": (UNet, IMAGE),
    "TCN (Conv1d)": (TemporalNet, SIGNAL),
    "CNN (Conv1d, max pools)": (conv1d_pool_net, SIGNAL),
    "transformer": (TinyTransformer, IMAGE),
    "GRU": (GatedRecurrent, SIGNAL),
}
