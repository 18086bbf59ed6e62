"""The torch face of a student: built from the same declaration as its operator list."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd.core.architecture import Architecture, Block, Convolution

_ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6}


def _convolution(spec: Convolution) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(
            spec.in_channels,
            spec.out_channels,
            spec.kernel,
            spec.stride,
            (spec.kernel[0] // 2, spec.kernel[1] // 2),
            groups=spec.groups,
            bias=False,
        ),
        nn.BatchNorm2d(spec.out_channels),
    ]
    if spec.activation != "none":
        layers.append(_ACTIVATIONS[spec.activation]())
    return nn.Sequential(*layers)


class StudentBlock(nn.Module):
    """Convolutions in a row, plus the block's input where it is residual. (N, C, H, W) to (N, C', H', W')."""

    def __init__(self, spec: Block) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[_convolution(convolution) for convolution in spec.convolutions])
        self.residual = spec.residual

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the block."""
        outputs: Tensor = self.layers(inputs)
        return inputs + outputs if self.residual else outputs


class Student(nn.Module):
    """A student of any space. Input (N, C, H, W) float32, output logits (N, outputs)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.blocks = nn.Sequential(*[StudentBlock(block) for block in architecture.blocks])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(architecture.features, architecture.outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, outputs)."""
        logits: Tensor = self.classifier(self.flatten(self.pool(self.blocks(inputs))))
        return logits


def example_input(architecture: Architecture) -> Tensor:
    """One zero input (1, C, H, W), for tracing."""
    return torch.zeros(1, *architecture.input_shape)
