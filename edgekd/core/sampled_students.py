"""The students that a calibration measures: of all spaces, far apart from one another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.core.architecture import Architecture, Shape, operator_list
from edgekd.core.operators import OperatorList
from edgekd.core.spaces import SPACES
from edgekd.records.profile import OPERATOR_KINDS

NATIVE: dict[str, tuple[Shape, ...]] = {
    "ds-cnn": ((1, 1, 64), (3, 1, 128), (6, 1, 128), (6, 1, 256), (9, 1, 512)),
    "inverted-residual": ((1, 28, 28), (3, 32, 32), (1, 48, 48), (3, 64, 64), (3, 96, 96)),
}
OUTPUTS = (2, 10, 50)
DRAWN_FOR_ONE = 12
"""So many students are drawn for each that is chosen, so that the chosen ones can lie far apart."""


@dataclass(frozen=True)
class SampledStudent:
    """A student to measure: its space, the task's input shape, its choices and outputs."""

    space: str
    native: Shape
    choices: Mapping[str, int]
    outputs: int

    @property
    def label(self) -> str:
        """All of it on one line."""
        size = "x".join(str(side) for side in self.native)
        chosen = " ".join(f"{name}={value}" for name, value in self.choices.items())
        return f"{self.space} input={size} {chosen} outputs={self.outputs}"

    def architecture(self) -> Architecture:
        """The network."""
        return SPACES[self.space].architecture(self.choices, self.native, self.outputs)


def sampled_students(
    count: int, seed: int, natives: Mapping[str, Sequence[Shape]] = NATIVE
) -> tuple[SampledStudent, ...]:
    """Students of all spaces, far apart from one another in the work they hold; any first few of them are, too.

    Each next one is that of the drawn students whose nearest neighbour among the chosen is farthest, in the
    logarithms of MACs by operator kind (farthest-point sampling: Gonzalez 1985).
    """
    random = np.random.default_rng(seed)
    drawn = [_draw(random, sorted(natives)[index % len(natives)], natives) for index in range(count * DRAWN_FOR_ONE)]
    lists = [operator_list(student.architecture()) for student in drawn]
    at = np.array([[math.log1p(1e3 * value) for value in _work(operators)] for operators in lists])
    at = (at - at.mean(axis=0)) / (at.std(axis=0) + 1e-9)
    chosen = [int(np.argsort(((at - np.median(at, axis=0)) ** 2).sum(axis=1))[0])]
    distance = np.full(len(drawn), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, ((at - at[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(np.argmax(distance)))
    return tuple(drawn[index] for index in chosen)


def _draw(random: np.random.Generator, name: str, natives: Mapping[str, Sequence[Shape]]) -> SampledStudent:
    native = natives[name][int(random.integers(len(natives[name])))]
    dimensions = SPACES[name].dimensions(native)
    choices = {key: int(random.choice(values)) for key, values in dimensions.items()}
    return SampledStudent(name, native, choices, int(random.choice(OUTPUTS)))


def _work(operators: OperatorList) -> list[float]:
    by_kind = dict.fromkeys(OPERATOR_KINDS, 0.0)
    for operator in operators.operators:
        by_kind[operator.kind] += operator.macs / 1e6
    return [*by_kind.values(), len(operators.operators) / 1e3]
