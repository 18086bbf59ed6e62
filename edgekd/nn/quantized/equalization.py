"""Equalization across layers: channels of one tensor brought to like ranges, without changing what is computed.

A positive factor per channel passes through a ReLU, a pool or an upsampling, so the layer before may divide by it and
the layer behind multiply its weights (Nagel et al. 2019, arXiv:1906.04721). Weights have a scale per output channel
here, so it is the activation between that gains: a depthwise layer behind takes any factor for nothing, any other
shares the strain evenly (as Xiao et al. 2023, arXiv:2211.10438, do).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekd.nn.evaluation import evaluating
from edgekd.nn.quantized.islands import Step
from edgekd.nn.quantized.layers import WeightedLayer
from edgekd.nn.quantized.model import QuantizedModel

_LINEAR = {"global_average_pool", "average_pool", "max_pool", "upsample"}
"""Layers without weights that a positive factor per channel passes through."""
_LEAST_RANGE = 1e-5
_MOST_FACTOR = 1e3


@torch.no_grad()
def equalize(model: QuantizedModel, batches: Sequence[Tensor]) -> int:
    """Equalize, in place, every pair of weighted layers that allows it; ranges must be calibrated anew behind this.

    Args:
        model: its weights change, not its float outputs.
        batches: inputs (N, ...) over which the channels' ranges are taken.

    Returns:
        How many pairs were equalized.
    """
    pairs = _pairs(model)
    for first, second in pairs:
        _equalize(model, batches, first, second)
    return len(pairs)


def _pairs(model: QuantizedModel) -> list[tuple[Step, Step]]:
    readers: dict[str, list[Step]] = {}
    for step in model.steps:
        for name in step.inputs:
            readers.setdefault(name, []).append(step)
    found = []
    for step in model.steps:
        layer = model.layer(step)
        if not isinstance(layer, WeightedLayer) or layer.activation not in ("none", "relu"):
            continue
        behind = readers.get(step.key, [])
        while len(behind) == 1 and model.layer(behind[0]).kind in _LINEAR:
            behind = readers.get(behind[0].key, [])
        if len(behind) != 1:
            continue
        second = model.layer(behind[0])
        if isinstance(second, WeightedLayer) and _fits(layer, second):
            found.append((step, behind[0]))
    return found


def _fits(first: WeightedLayer, second: WeightedLayer) -> bool:
    groups = int(second.attributes.get("groups", 1))
    channels = len(first.weight)
    # Flattened images (more columns than channels) and grouped layers between depthwise and dense are left alone.
    return groups == channels if groups > 1 else second.weight.shape[1] == channels


def _equalize(model: QuantizedModel, batches: Sequence[Tensor], first: Step, second: Step) -> None:
    spans = []
    for batch in batches:
        with evaluating(model), model.unrounded():
            values = model.activations(batch)[first.key]
        spans.append(values.abs().transpose(0, 1).flatten(1).amax(1))
    spread = torch.stack(spans).amax(0).clamp(min=_LEAST_RANGE)
    before, behind = model.layer(first), model.layer(second)
    assert isinstance(before, WeightedLayer) and isinstance(behind, WeightedLayer)
    if int(behind.attributes.get("groups", 1)) > 1:
        factor = spread / spread.amax()
    else:
        reach = behind.weight.abs().transpose(0, 1).flatten(1).amax(1).clamp(min=_LEAST_RANGE)
        factor = torch.sqrt(spread / reach)
        factor = factor / factor.amax()
    factor = factor.clamp(1 / _MOST_FACTOR, 1.0)
    before.weight.div_(factor.reshape(-1, *[1] * (before.weight.dim() - 1)))
    before.bias.div_(factor)
    if int(behind.attributes.get("groups", 1)) > 1:
        behind.weight.mul_(factor.reshape(-1, *[1] * (behind.weight.dim() - 1)))
    else:
        behind.weight.mul_(factor.reshape(1, -1, *[1] * (behind.weight.dim() - 2)))
