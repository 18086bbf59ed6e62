"""Evaluation mode for a while, and the device to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the model is in evaluation mode; behind it each of its submodules is in the mode it was in.

    A model's own mode says nothing about its parts: `train(mode)` of a wrapper, or of a model with frozen batch
    norms, would let running statistics move that were to stay.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters and buffers are; the CPU where it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
