"""Layers that move values and make none: shapes, concatenation, slices, shuffles, upsampling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from edgekd.nn.quantized.layers.base import QuantizedLayer, Scales


class Reshape(QuantizedLayer):
    """Another shape for the same elements in the same order. Attribute `shape` leaves out the batch."""

    kind = "reshape"
    grid_rule = "input"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The reshaped tensor."""
        return inputs[0].reshape(len(inputs[0]), *self.attributes["shape"])


class Concatenation(QuantizedLayer):
    """Tensors one behind the other along `axis` (1: the channels)."""

    kind = "concat"
    grid_rule = "join"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The joined tensor."""
        return torch.cat(inputs, self.attributes["axis"])


class Slice(QuantizedLayer):
    """Channels `start` to `end` (excluded), (N, C, ...) to (N, end - start, ...)."""

    kind = "slice"
    grid_rule = "input"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The slice."""
        return inputs[0][:, self.attributes["start"] : self.attributes["end"]]


class ChannelShuffle(QuantizedLayer):
    """Channels of `groups` groups interleaved (Zhang et al. 2017, arXiv:1707.01083), (N, C, H, W)."""

    kind = "channel_shuffle"
    grid_rule = "input"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The shuffled channels."""
        batch, channels, height, width = inputs[0].shape
        groups = self.attributes["groups"]
        grouped = inputs[0].reshape(batch, groups, channels // groups, height, width)
        return grouped.transpose(1, 2).reshape(batch, channels, height, width)


class Upsample(QuantizedLayer):
    """Each value repeated over `factor` (height, width) neighbours, (N, C, H, W) to (N, C, H fh, W fw)."""

    kind = "upsample"
    grid_rule = "input"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The enlarged tensor."""
        height, width = self.attributes["factor"]
        return F.interpolate(inputs[0], scale_factor=(float(height), float(width)), mode="nearest")
