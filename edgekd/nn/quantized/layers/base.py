"""What every fake-quantized layer has in common.

A layer computes in float on values that lie on integer grids, and describes itself as data. It gets its inputs
already on their grids, with the grids' scales; its output is put on a grid by the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from edgekd.nn.quantized.network import Activation, Grid


@dataclass(frozen=True, slots=True)
class Scales:
    """The scales of what a layer reads and of what it makes, each a scalar tensor: None where those are floats."""

    inputs: tuple[Tensor | None, ...]
    output: Tensor | None = None


GridRule = Literal["own", "input", "join"]
"""`own`: the output has a grid of its own. `input`: it lies on the input's, because values are moved or averaged
and none is made. `join`: all inputs and the output share one."""
_ACTIVATIONS = {"relu": F.relu, "relu6": F.relu6, "relu1": lambda values: torch.clamp(values, 0.0, 1.0)}


class QuantizedLayer(nn.Module):
    """An operator of the network; `attributes` are those of `network.Layer`."""

    kind: ClassVar[str] = ""
    grid_rule: ClassVar[GridRule] = "own"
    in_float_only: ClassVar[bool] = False
    """Whether the runtimes have no integer form of it that agrees."""
    fixed_grid: ClassVar[Grid | None] = None
    """The one grid that the runtimes' kernels allow for the output, where there is one."""

    def __init__(self, activation: Activation = "none", **attributes: Any) -> None:
        super().__init__()
        self.activation = activation
        self.attributes = attributes
        self.saturates = False
        """Set where the output's grid already ends where the activation would clip."""

    def forward(self, *inputs: Tensor, scales: Scales) -> Tensor:
        """The layer's output, before it is put on its grid."""
        outputs = self.compute(inputs, scales)
        if self.activation == "none" or self.saturates:
            return outputs
        return _ACTIVATIONS[self.activation](outputs)

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The operator without its activation."""
        raise NotImplementedError

    def describe(self, scales: Scales) -> dict[str, Any]:
        """The layer as it will be stored: `kind`, `attributes` and constants of `network.Layer`."""
        return {"kind": self.kind, "attributes": dict(self.attributes)}
