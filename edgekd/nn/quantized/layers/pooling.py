"""Pools. Means are taken of whole steps where quantized: they are often ties, which sums of floats would break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from edgekd.nn.quantized.layers.base import QuantizedLayer, Scales
from edgekd.nn.quantized.quantizer import straight_through

HALVES_UP = 1.0 + 2.0**-19
"""Factor on the means of windows: halves become a little more, so that every runtime rounds them away from 0."""


def _mean_of_steps(
    mean: Callable[[Tensor], Tensor], values: Tensor, scale: Tensor | None, factor: float = 1.0
) -> Tensor:
    if scale is None:
        return mean(values)
    steps = mean(torch.round(values.detach() / scale)) * factor
    return straight_through(mean(values), torch.round(steps) * scale)


class GlobalAveragePool(QuantizedLayer):
    """Mean over height and width, (N, C, H, W) to (N, C) or, with `keepdim`, (N, C, 1, 1)."""

    kind = "global_average_pool"
    grid_rule = "input"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The mean."""
        keepdim = self.attributes["keepdim"]
        return _mean_of_steps(lambda values: values.mean((2, 3), keepdim=keepdim), inputs[0], scales.inputs[0])


class AveragePool(QuantizedLayer):
    """Mean over windows of `kernel` (height, width) every `stride`, zeros of `padding` counted in.

    `padding` is (top, bottom, left, right); `channels` is C.
    """

    kind = "average_pool"
    grid_rule = "input"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The means."""
        top, bottom, left, right = self.attributes["padding"]

        def mean(values: Tensor) -> Tensor:
            padded = F.pad(values, (left, right, top, bottom)) if any(self.attributes["padding"]) else values
            return F.avg_pool2d(padded, self.attributes["kernel"], self.attributes["stride"])

        return _mean_of_steps(mean, inputs[0], scales.inputs[0], HALVES_UP)

    def describe(self, scales: Scales) -> dict[str, Any]:
        """Where quantized, a depthwise convolution: the runtimes' own means round ties differently, this one alike.

        All weights are 64, so that sums are whole multiples of 64 and none lies near a half that is not one.
        """
        if scales.inputs[0] is None:
            return super().describe(scales)
        channels, (height, width) = self.attributes["channels"], self.attributes["kernel"]
        return {
            "kind": "conv",
            "attributes": {
                "stride": self.attributes["stride"],
                "padding": self.attributes["padding"],
                "dilation": (1, 1),
                "groups": channels,
            },
            "weight": np.full((channels, 1, height, width), 64, np.int8),
            "weight_scale": np.full(channels, HALVES_UP / (64 * height * width), np.float32),
            "bias": np.zeros(channels, np.int32),
        }


class MaxPool(QuantizedLayer):
    """Largest value of windows of `kernel` every `stride`; `padding` (top, bottom, left, right) never wins."""

    kind = "max_pool"
    grid_rule = "input"

    def compute(self, inputs: tuple[Tensor, ...], scales: Scales) -> Tensor:
        """The maxima."""
        values = inputs[0]
        top, bottom, left, right = self.attributes["padding"]
        if any(self.attributes["padding"]):
            values = F.pad(values, (left, right, top, bottom), value=float("-inf"))
        return F.max_pool2d(values, self.attributes["kernel"], self.attributes["stride"])
