"""Teachers for the built-in tasks: residual CNNs, far larger than any student, trained in minutes on a CPU."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016, arXiv:1512.03385). `kernel` and `stride` are (height, width)."""

    def __init__(self, channels_in: int, channels: int, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, 1, padding, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels or stride != (1, 1):
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.activation = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H', W')."""
        outputs: Tensor = self.activation(self.body(inputs) + self.shortcut(inputs))
        return outputs


def residual_teacher(
    input_channels: int, outputs: int, widths: tuple[int, ...], kernel: tuple[int, int], dropout: float = 0.2
) -> nn.Module:
    """A residual CNN with one block per entry of `widths`, each halving every axis its kernel spans.

    Returns:
        A module from (N, input_channels, H, W) float32 to logits (N, outputs).
    """
    stride = (2 if kernel[0] > 1 else 1, 2 if kernel[1] > 1 else 1)
    layers: list[nn.Module] = [
        nn.Conv2d(input_channels, widths[0], kernel, 1, (kernel[0] // 2, kernel[1] // 2), bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    previous = widths[0]
    for width in widths:
        layers.append(ResidualBlock(previous, width, kernel, stride))
        previous = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(previous, outputs)
    )
