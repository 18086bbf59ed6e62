"""Student spaces: what may be chosen, and the architecture that a choice stands for."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from edgekd.core.architecture import Activation, Architecture, Block, Convolution, Shape
from edgekd.errors import ConfigurationError

Choices = Mapping[str, int]


class StudentSpace(Protocol):
    """A family of students. `dimensions` lists the values of each choice, cheapest first."""

    @property
    def name(self) -> str:
        """The space's name in recipes."""
        ...

    def dimensions(self, native: Shape) -> dict[str, tuple[int, ...]]:
        """Allowed values by choice name, for a task whose inputs have shape `native` (C, H, W)."""
        ...

    def input_shape(self, choices: Choices, native: Shape) -> Shape:
        """Shape (C, H, W) of the input the chosen student takes."""
        ...

    def architecture(self, choices: Choices, native: Shape, outputs: int) -> Architecture:
        """The network that the choices stand for."""
        ...


@functools.lru_cache(maxsize=4096)
def _conv(
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int] = (1, 1),
    stride: tuple[int, int] = (1, 1),
    groups: int = 1,
    activation: Activation = "none",
) -> Convolution:
    return Convolution(in_channels, out_channels, kernel, stride, groups, activation)


def _fractions_of(size: int) -> tuple[int, ...]:
    """Half, three quarters and all of a size, rounded up to even, without repeats."""
    return tuple(sorted({min(size, 2 * math.ceil(size * quarters / 8)) for quarters in (2, 3, 4)}))


@dataclass(frozen=True)
class SignalSpace:
    """Depthwise-separable convolutions along time (DS-CNN: Zhang et al. 2017, arXiv:1711.07128), height 1.

    A stem of `width` channels, then `depth` blocks of a depthwise convolution and a pointwise one. The first
    three blocks halve the time axis and widen by half; later blocks keep both. `window` is how many of the last
    samples the student sees.
    """

    name: str = "ds-cnn"

    def dimensions(self, native: Shape) -> dict[str, tuple[int, ...]]:
        """Allowed values by choice name, cheapest first."""
        return {
            "window": _fractions_of(native[2]),
            "stem_stride": (4, 2, 1),
            "kernel": (3, 5, 7, 9),
            "width": (8, 12, 16, 24, 32, 48),
            "depth": (1, 2, 3, 4, 5),
        }

    def input_shape(self, choices: Choices, native: Shape) -> Shape:
        """(channels, 1, window)."""
        return (native[0], native[1], choices["window"])

    def architecture(self, choices: Choices, native: Shape, outputs: int) -> Architecture:
        """The network that the choices stand for."""
        channels, kernel = choices["width"], (1, choices["kernel"])
        blocks = [Block((_conv(native[0], channels, kernel, (1, choices["stem_stride"]), activation="relu"),))]
        for index in range(choices["depth"]):
            shrink = index < 3
            widened = channels * 3 // 2 if shrink else channels
            blocks.append(
                Block(
                    (
                        _conv(channels, channels, kernel, (1, 2 if shrink else 1), channels, "relu"),
                        _conv(channels, widened, activation="relu"),
                    )
                )
            )
            channels = widened
        return Architecture(self.input_shape(choices, native), tuple(blocks), outputs)


@dataclass(frozen=True)
class ImageSpace:
    """Inverted residuals with linear bottlenecks and ReLU6 (MobileNetV2: Sandler et al. 2018, arXiv:1801.04381).

    A stem of `width` channels, then three stages of `depth` blocks with `width`, 2 `width` and 3 `width` channels;
    the second and third stage halve the resolution. `resolution` is the side of the square input.
    """

    name: str = "inverted-residual"

    def dimensions(self, native: Shape) -> dict[str, tuple[int, ...]]:
        """Allowed values by choice name, cheapest first."""
        return {
            "resolution": _fractions_of(native[1]),
            "stem_stride": (2, 1),
            "kernel": (3, 5),
            "width": (4, 8, 12, 16, 24),
            "depth": (1, 2, 3),
            "expansion": (2, 3, 4, 6),
        }

    def input_shape(self, choices: Choices, native: Shape) -> Shape:
        """(channels, resolution, resolution)."""
        return (native[0], choices["resolution"], choices["resolution"])

    def architecture(self, choices: Choices, native: Shape, outputs: int) -> Architecture:
        """The network that the choices stand for."""
        channels, kernel = choices["width"], (choices["kernel"], choices["kernel"])
        stride = choices["stem_stride"]
        blocks = [Block((_conv(native[0], channels, (3, 3), (stride, stride), activation="relu6"),))]
        for stage in range(3):
            target = choices["width"] * (stage + 1)
            for position in range(choices["depth"]):
                step = 2 if stage > 0 and position == 0 else 1
                hidden = channels * choices["expansion"]
                blocks.append(
                    Block(
                        (
                            _conv(channels, hidden, activation="relu6"),
                            _conv(hidden, hidden, kernel, (step, step), hidden, "relu6"),
                            _conv(hidden, target),
                        ),
                        residual=step == 1 and channels == target,
                    )
                )
                channels = target
        blocks.append(Block((_conv(channels, 2 * channels, activation="relu6"),)))
        return Architecture(self.input_shape(choices, native), tuple(blocks), outputs)


SPACES: Mapping[str, StudentSpace] = MappingProxyType({space.name: space for space in (SignalSpace(), ImageSpace())})
"""Those built in, by name."""


def space_named(name: str) -> StudentSpace:
    """The space of that name.

    Raises:
        ConfigurationError: there is none; the message lists those there are.
    """
    if name not in SPACES:
        raise ConfigurationError(f"student.space: there is no space {name!r}; there are: {', '.join(SPACES)}")
    return SPACES[name]


def every_choice(space: StudentSpace, native: Shape, fixed: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """All choices of a space in which the `fixed` ones hold.

    Raises:
        ConfigurationError: a fixed choice is unknown or not among the allowed values.
    """
    dimensions = space.dimensions(native)
    for name, value in fixed.items():
        if name not in dimensions:
            raise ConfigurationError(f"student.fixed.{name}: space {space.name} chooses {', '.join(dimensions)}")
        if value not in dimensions[name]:
            allowed = ", ".join(str(choice) for choice in dimensions[name])
            raise ConfigurationError(f"student.fixed.{name} = {value}: allowed values are {allowed}")
    values = [(fixed[name],) if name in fixed else allowed for name, allowed in dimensions.items()]
    for combination in itertools.product(*values):
        yield dict(zip(dimensions, combination, strict=True))


def compound_path(dimensions: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """Choices along which all dimensions grow together, cheapest first.

    Compound scaling: Tan and Le 2019, arXiv:1905.11946.
    """
    steps = 2 * sum(len(values) for values in dimensions.values())
    path = [
        {name: values[round(step / steps * (len(values) - 1))] for name, values in dimensions.items()}
        for step in range(steps + 1)
    ]
    return [choices for index, choices in enumerate(path) if choices not in path[:index]]


def centre_lines(dimensions: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """The middle choice of everything, with one dimension at a time taking each of its values."""
    middle = {name: values[len(values) // 2] for name, values in dimensions.items()}
    return [{**middle, name: value} for name, values in dimensions.items() for value in values]
