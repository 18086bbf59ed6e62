"""Networks over time or tokens."""

# ruff: noqa: D102 - every forward is what its class says

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


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
