"""Bias correction: rounding shifts a layer's mean output, and its bias takes the shift back.

Empirical form of Nagel et al. 2019 (arXiv:1906.04721), section 4.2: layer by layer, each seeing inputs that carry the
rounding of all corrected layers before it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.nn.evaluation import evaluating
from edgekd.nn.quantized.islands import Step
from edgekd.nn.quantized.layers import QuantizedLayer, WeightedLayer
from edgekd.nn.quantized.layers.base import Scales
from edgekd.nn.quantized.model import QuantizedModel


@torch.no_grad()
def correct_biases(model: QuantizedModel, inputs: Tensor) -> None:
    """Correct, in place, every layer's bias by the mean shift that rounding causes over inputs (N, ...).

    Raises:
        BuildError: the model's ranges were never observed.
    """
    means: dict[str, Tensor] = {}

    def remember(step: Step, layer: QuantizedLayer, values: tuple[Tensor, ...], scales: Scales) -> None:
        if isinstance(layer, WeightedLayer):
            means[step.key] = _mean(layer.compute(values, scales))

    def correct(step: Step, layer: QuantizedLayer, values: tuple[Tensor, ...], scales: Scales) -> None:
        if isinstance(layer, WeightedLayer):
            layer.shift_bias(means[step.key] - _mean(layer.compute(values, scales)))

    with evaluating(model):
        with model.unrounded():
            model.activations(inputs, remember)
        model.activations(inputs, correct)


def _mean(outputs: Tensor) -> Tensor:
    """Per channel, (C,)."""
    return outputs.transpose(0, 1).flatten(1).mean(1)
