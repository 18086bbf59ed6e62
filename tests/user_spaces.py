"""Student spaces as a user would declare them: one that works, and ones that do not."""

import torch
from torch import nn

from edgekd.core.architecture import Architecture
from edgekd.tasks import Space


def convolutions(input_shape, outputs, width, depth):
    channels, layers = input_shape[0], []
    for index in range(depth):
        stride = 2 if index == 0 else 1
        layers += [
            nn.Conv2d(channels, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))


def odd_width_fails(input_shape, outputs, width, depth):
    if width == 16:
        raise ValueError("sixteen is not to my liking")
    return convolutions(input_shape, outputs, width, depth)


class Uneven(nn.Module):
    """Channels from 1/256 to 256, added, and made even again: the same in float, while eight bits lose the small ones.

    Nothing of one channel follows another's alone, so the sizes cannot be moved from layer to layer.
    """

    def __init__(self, width):
        super().__init__()
        sizes = (4.0 ** torch.linspace(-4, 4, width)).view(-1, 1, 1, 1)
        self.direct, self.beside, self.back = (nn.Conv2d(width, width, 1, groups=width, bias=False) for _ in range(3))
        self.mix = nn.Conv2d(width, width, 1)
        with torch.no_grad():
            self.direct.weight.copy_(sizes)
            self.beside.weight.copy_(sizes)
            self.back.weight.copy_(1 / sizes)

    def forward(self, inputs):
        return self.mix(self.back(self.direct(inputs) + self.beside(inputs.relu())))


class Normed(nn.Module):
    """Over channels, a layer norm and GELU, which have no int8 form."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, inputs):
        return nn.functional.gelu(self.norm(inputs.mean((2, 3))))


def hard_to_round(input_shape, outputs, width):
    return nn.Sequential(
        *(nn.Conv2d(input_shape[0], width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), Uneven(width), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs)),
    )


def partly_float(input_shape, outputs, width):
    return nn.Sequential(
        *(nn.Conv2d(input_shape[0], width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), Normed(width), nn.Linear(width, outputs)),
    )


uneven = Space(dimensions={"width": (16,)}, build=hard_to_round)
normed = Space(dimensions={"width": (16,)}, build=partly_float)
DIMENSIONS = {"width": (8, 16), "depth": (1, 2)}
space = Space(dimensions=DIMENSIONS, build=convolutions)
smaller = Space(
    dimensions={**DIMENSIONS, "side": (6, 8)},
    build=lambda side, **choices: convolutions(**choices),
    input_shape=lambda choices, native: (native[0], choices["side"], choices["side"]),
)
fails = Space(dimensions=DIMENSIONS, build=odd_width_fails)
no_module = Space(dimensions=DIMENSIONS, build=lambda **choices: "a module")
wrong_logits = Space(dimensions=DIMENSIONS, build=lambda outputs, **rest: convolutions(outputs=outputs + 1, **rest))
no_int8_form = Space(
    dimensions=DIMENSIONS,
    build=lambda **choices: nn.Sequential(convolutions(**choices), nn.Softshrink()),
)
wrong_shape = Space(dimensions=DIMENSIONS, build=convolutions, input_shape=lambda choices, native: (3, 3))
nothing_to_choose = Space(dimensions={}, build=convolutions)
no_numbers = Space(dimensions={"width": ("wide", "narrow")}, build=convolutions)
twice = Space(dimensions={"width": (8, 8)}, build=convolutions)
too_many = Space(dimensions={f"choice{index}": tuple(range(10)) for index in range(4)}, build=convolutions)
not_a_space = Architecture
