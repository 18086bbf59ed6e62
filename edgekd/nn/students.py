"""The torch face of a student: built from the same declaration as its operator list."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd.core.architecture import Architecture, Block, Convolution, TracedArchitecture

_ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6}


def _convolution(spec: Convolution, height: int, width: int) -> nn.Sequential:
    top, bottom, left, right = spec.padding(height, width)
    symmetric = top == bottom and left == right
    layers: list[nn.Module] = [] if symmetric else [nn.ZeroPad2d((left, right, top, bottom))]
    layers += [
        nn.Conv2d(
            spec.in_channels,
            spec.out_channels,
            spec.kernel,
            spec.stride,
            (top, left) if symmetric else 0,
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

    def __init__(self, spec: Block, height: int, width: int) -> None:
        super().__init__()
        layers = []
        for convolution in spec.convolutions:
            layers.append(_convolution(convolution, height, width))
            height, width = convolution.output_size(height, width)
        self.layers = nn.Sequential(*layers)
        self.residual = spec.residual
        self.output_size = (height, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the block."""
        outputs: Tensor = self.layers(inputs)
        return inputs + outputs if self.residual else outputs


class Student(nn.Module):
    """A student of any space. Input (N, C, H, W) float32, output logits (N, outputs)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.network: nn.Module | None = None
        """A user's own module in place of all others."""
        if isinstance(architecture, TracedArchitecture):
            self.network = architecture.build()
            return
        blocks: list[StudentBlock] = []
        size = architecture.input_shape[1:]
        for block in architecture.blocks:
            blocks.append(StudentBlock(block, *size))
            size = blocks[-1].output_size
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(architecture.features, architecture.outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, outputs)."""
        if self.network is not None:
            built: Tensor = self.network(inputs)
            return built
        logits: Tensor = self.classifier(self.flatten(self.pool(self.blocks(inputs))))
        return logits


def example_input(architecture: Architecture) -> Tensor:
    """One zero input (1, C, H, W), for tracing."""
    return torch.zeros(1, *architecture.input_shape)
