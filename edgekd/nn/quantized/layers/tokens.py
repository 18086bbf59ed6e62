"""Layers over tokens, stored as images (N, F, 1, T)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from edgekd.nn.quantized.layers.base import QuantizedLayer, Scales


class LayerNorm(QuantizedLayer):
    """Layer norm over the channels, (N, C, ...) of the same shape (Ba et al. 2016, arXiv:1607.06450)."""

    kind = "layer_norm"
    in_float_only = True

    def __init__(self, channels: int, weight: Tensor | None, bias: Tensor | None, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.weight = nn.Parameter(torch.ones(channels) if weight is None else weight.detach().clone())
        self.bias = nn.Parameter(torch.zeros(channels) if bias is None else bias.detach().clone())

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The normalized values."""
        last = inputs[0].movedim(1, -1)
        return F.layer_norm(last, last.shape[-1:], self.weight, self.bias, self.attributes["eps"]).movedim(-1, 1)

    def describe(self, scales: Scales) -> dict[str, Any]:
        """The layer with its gains (C,) as weight and its shifts (C,) as bias, float32."""
        weight, bias = (values.detach().cpu().numpy().astype(np.float32) for values in (self.weight, self.bias))
        return {**super().describe(scales), "weight": weight, "bias": bias}


class Attention(QuantizedLayer):
    """Scaled dot-product attention of queries, keys and values, (N, F, 1, T) each, in `heads` groups of channels.

    softmax(scale q k^T) v per head (Vaswani et al. 2017, arXiv:1706.03762).
    """

    kind = "attention"
    in_float_only = True

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The weighted values, (N, F, 1, T)."""
        heads, scale = self.attributes["heads"], self.attributes["scale"]
        query, key, value = (_heads(tensor, heads) for tensor in inputs)
        found = F.scaled_dot_product_attention(query, key, value, scale=scale)
        return found.transpose(2, 3).flatten(1, 2).unsqueeze(2)


class Embedding(QuantizedLayer):
    """Rows of a table (V, F) by ids (N, ..., L), numbers of any type: tokens (N, F, 1, L).

    The table lies on the output's grid, so that reading it makes no values.
    """

    kind = "embedding"

    def __init__(self, table: Tensor, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.table = nn.Parameter(table.detach().clone())

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The rows."""
        ids = torch.round(inputs[0]).long().flatten(1).clamp(0, len(self.table) - 1)
        return F.embedding(ids, self.table).transpose(1, 2).unsqueeze(2)

    def describe(self, scales: Scales) -> dict[str, Any]:
        """The layer with its table as weight, float32; the writers put it on the output's grid."""
        return {**super().describe(scales), "weight": self.table.detach().cpu().numpy().astype(np.float32)}


def _heads(tensor: Tensor, heads: int) -> Tensor:
    """(N, F, 1, T) to (N, heads, T, F / heads)."""
    count, channels, _, tokens = tensor.shape
    return tensor.reshape(count, heads, channels // heads, tokens).transpose(2, 3)
