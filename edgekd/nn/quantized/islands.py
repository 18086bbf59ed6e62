"""Layers that compute in float between int8 ones, and the borders of what they read and give.

A layer in float reads dequantized values and has float weights. Between two of them nothing is rounded; where one of
integers reads what one in float gives, or the other way round, the file has a quantize or a dequantize there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """One layer's wiring. `key` names the layer and the tensor it makes; `inputs` the tensors it reads."""

    key: str
    place: str
    inputs: tuple[str, ...]


def rounded(tensor: str) -> str:
    """The name of a float tensor's copy on its grid."""
    return f"{tensor}/rounded"


def floated(tensor: str) -> str:
    """The name of a rounded tensor's copy in float."""
    return f"{tensor}/float"


@dataclass(frozen=True)
class Islands:
    """Which steps compute in float. `float_io`: so is the network's input, and its output is given in float.

    `ids` are the steps that read the input as numbers of something (an embedding): it is int32 then, on no grid.
    """

    steps: frozenset[str] = frozenset()
    float_io: bool = False
    ids: frozenset[str] = frozenset()
    input: str = "input"
    readers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Who reads each tensor, by the steps' keys."""

    def is_float(self, tensor: str) -> bool:
        """Whether a tensor is made in float."""
        return tensor in self.steps or (tensor == self.input and (self.float_io or bool(self.ids)))

    def read_as(self, reader: str, tensor: str) -> str:
        """The name of what `reader` reads of a tensor: itself, or its copy on the grid. Copies in float have none."""
        return rounded(tensor) if self.is_float(tensor) and reader not in self.steps | self.ids else tensor

    def needs_rounding(self, tensor: str, output: str) -> bool:
        """Whether somebody reads the copy on the grid of a tensor made in float."""
        read = any(reader not in self.steps | self.ids for reader in self.readers.get(tensor, ()))
        return self.is_float(tensor) and (read or tensor == output)


def readers_of(steps: Sequence[Step]) -> dict[str, tuple[str, ...]]:
    """Who reads each tensor, by the steps' keys."""
    found: dict[str, tuple[str, ...]] = {}
    for step in steps:
        for name in dict.fromkeys(step.inputs):
            found[name] = (*found.get(name, ()), step.key)
    return found


def beyond(steps: Sequence[Step], key: str, moves: Collection[str]) -> frozenset[str]:
    """A step with all that read what it gives, through those of `moves`, which make no values.

    Kept in float together, the step's output is never rounded.
    """
    readers = readers_of(steps)
    found, pending = {key}, [key]
    while pending:
        for reader in readers.get(pending.pop(), ()):
            if reader not in found and reader in moves:
                pending.append(reader)
            found.add(reader)
    return frozenset(found)
