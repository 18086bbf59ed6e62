"""The exponential moving average of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of a model's weights and statistics (Polyak and Juditsky 1992).

    The decay starts low, so that the average forgets the random start. With decay 0 it is the model itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model) if decay > 0 else model
        self.decay, self.steps = decay, 0
        pairs = zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        apart = [pair for pair in pairs if pair[0].data_ptr() != pair[1].data_ptr()]
        self._means: list[Tensor] = [mean for mean, _ in apart if mean.dtype.is_floating_point]
        self._values: list[Tensor] = [value for mean, value in apart if mean.dtype.is_floating_point]
        self._counts = [pair for pair in apart if not pair[0].dtype.is_floating_point]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights of now."""
        if self.decay == 0:
            return
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 9))
        if self._means:
            torch._foreach_lerp_(self._means, self._values, 1 - decay)
        for mean, value in self._counts:
            mean.copy_(value)
