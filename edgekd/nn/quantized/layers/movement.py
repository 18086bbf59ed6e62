"""Layers that move values and make none: shapes, concatenation, slices, shuffles, upsampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
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


class UpsampleBilinear(QuantizedLayer):
    """Bilinear interpolation to `size` (height, width); `align_corners` as in torch. In float only."""

    kind = "upsample_bilinear"
    in_float_only = True

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The enlarged tensor."""
        size, corners = self.attributes["size"], self.attributes["align_corners"]
        return F.interpolate(inputs[0], size=size, mode="bilinear", align_corners=corners)


class DepthToSpace(QuantizedLayer):
    """Blocks of `factor` (height, width) pixels out of channels: those of a pixel lie together in the input."""

    kind = "depth_to_space"
    grid_rule = "input"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The larger image, (N, C fh fw, H, W) to (N, C, H fh, W fw)."""
        batch, channels, height, width = inputs[0].shape
        rows, columns = self.attributes["factor"]
        blocks = inputs[0].reshape(batch, rows, columns, channels // (rows * columns), height, width)
        return blocks.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * rows, width * columns)


class Permute(QuantizedLayer):
    """The stored axes in another order: attribute `axes`, the batch first."""

    kind = "permute"
    grid_rule = "input"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The permuted tensor."""
        return inputs[0].permute(self.attributes["axes"])


class Constant(QuantizedLayer):
    """A tensor (1, ...) of the model that takes part in sums and products."""

    kind = "constant"

    def __init__(self, value: Tensor, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.value = nn.Parameter(value.detach().clone())

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The tensor."""
        return self.value

    def describe(self, scales: Scales) -> dict[str, Any]:
        """The layer with its values as weight, float32; the writers put them on the output's grid."""
        return {**super().describe(scales), "weight": self.value.detach().cpu().numpy().astype(np.float32)}
