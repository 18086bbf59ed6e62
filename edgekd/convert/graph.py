"""A model file's graph as read, in either format: the input of the audit and of operator lists."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from edgekd.nn.quantized.network import Array, Network
from edgekd.records import Format

METADATA_NAME = "edgekd"
"""Where an edgekd file says what it is: `claims` as JSON."""


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """A value or a constant. `dtype` is numpy's name. `scales` has one entry, or one per index of `axis`.

    `buffer` is the place in the file that holds the constant, where several tensors may share one.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: Array | None = None
    scales: Array | None = None
    zero_points: Array | None = None
    axis: int = 0
    buffer: int | None = None

    @property
    def elements(self) -> int:
        """Number of elements; unknown dimensions count as 1."""
        return math.prod(max(size, 1) for size in self.shape)


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One operator as the file has it. Optional inputs that are left out are missing from `inputs`' names ("")."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order. `metadata` is what the file says of itself."""

    format: Format
    tensors: dict[str, GraphTensor]
    nodes: tuple[GraphNode, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: dict[str, str] = field(default_factory=dict)

    def producers(self) -> dict[str, GraphNode]:
        """Which node makes each value."""
        return {name: node for node in self.nodes for name in node.outputs}

    def readers(self) -> dict[str, list[GraphNode]]:
        """Which nodes read each value; the graph's outputs have no reader of their own."""
        found: dict[str, list[GraphNode]] = {}
        for node in self.nodes:
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        return found

    def constant(self, name: str) -> bool:
        """Whether a value is stored in the file."""
        return name in self.tensors and self.tensors[name].data is not None


def claims(network: Network) -> dict[str, str]:
    """What a file of `network` says of itself: its scheme, how fine its weight scales are, what it keeps in float."""
    said = {"scheme": str(network.scheme)}
    if any(layer.weight_scale is not None for layer in network.layers):
        said["weights"] = "per_channel"
    kept = network.kept_in_float
    return {**said, **({"kept_in_float": ", ".join(kept)} if kept else {})}
