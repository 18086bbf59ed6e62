"""Networks of ordinary convolutions: residual, dense, branching, contracting and expanding."""

# ruff: noqa: D102 - every forward is what its class says

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.quantization.zoo_blocks import conv_bn, head


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


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU6(), nn.Linear(32, 10))


def plain_softmax() -> nn.Module:
    return nn.Sequential(conv_bn(1, 12, stride=2), conv_bn(12, 24, stride=2), head(24), nn.Softmax(1))
