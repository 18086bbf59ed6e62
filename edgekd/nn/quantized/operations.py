"""A traced network: operations in execution order, as they are before anything is rewritten for a runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from edgekd.nn.quantized.network import Activation


@dataclass(frozen=True)
class Operation:
    """One call of the traced module. `shape` is its output's, batch 1; `parameters` are its constant tensors.

    `call` is the ATen call it comes from with its place, for messages.
    """

    name: str
    kind: str
    place: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    parameters: dict[str, Tensor] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    activation: Activation = "none"
    call: str = ""


@dataclass(frozen=True)
class Trace:
    """Operations in execution order, from one input to one output. The ranks are the user's, signals being 3."""

    operations: tuple[Operation, ...]
    input: str
    input_shape: tuple[int, ...]
    output: str
    input_rank: int
    output_rank: int

    def users(self) -> dict[str, list[Operation]]:
        """Who reads each tensor; the output has itself no reader."""
        readers: dict[str, list[Operation]] = {}
        for operation in self.operations:
            for name in operation.inputs:
                readers.setdefault(name, []).append(operation)
        return readers
