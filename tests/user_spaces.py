"""Student spaces as a user would declare them: one that works, and ones that do not."""

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
