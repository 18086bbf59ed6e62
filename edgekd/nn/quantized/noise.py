"""Where accuracy goes: what rounding does to each layer's output."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekd.nn.evaluation import evaluating
from edgekd.nn.quantized.model import QuantizedModel
from edgekd.nn.quantized.network import BORDERS


@dataclass(frozen=True, slots=True)
class LayerNoise:
    """A layer's output with all rounding up to it, against the same without any.

    `sqnr_db` is the signal-to-quantization-noise ratio, 10 log10(power of signal / power of difference);
    `low` and `high` are the ends of its grid; `saturated` is the share of values that the grid clips.
    """

    layer: str
    kind: str
    sqnr_db: float
    low: float
    high: float
    saturated: float


@torch.no_grad()
def layer_noise(model: QuantizedModel, inputs: Tensor) -> list[LayerNoise]:
    """The noise behind each layer over inputs (N, ...) float32, in execution order.

    Raises:
        BuildError: the model's ranges were never observed.
    """
    network = model.network()
    with evaluating(model):
        rounded = model.activations(inputs)
        with model.unrounded():
            exact = model.activations(inputs)
    found = []
    for layer in network.layers:
        grid = network.tensors[layer.output].grid
        if grid is None or layer.kind in BORDERS:
            continue
        most = 2 ** (grid.bits - 1)
        low, high = (-most - grid.zero_point) * grid.scale, (most - 1 - grid.zero_point) * grid.scale
        reference, noisy = exact[layer.output], rounded[layer.output]
        half = grid.scale / 2
        found.append(
            LayerNoise(
                layer=layer.name,
                kind=layer.kind,
                sqnr_db=_decibels(reference.square().mean(), (reference - noisy).square().mean()),
                low=low,
                high=high,
                saturated=float(((reference < low - half) | (reference > high + half)).float().mean()),
            )
        )
    return found


@torch.no_grad()
def layer_damage(model: QuantizedModel, inputs: Tensor) -> dict[str, float]:
    """What each layer does to the outputs when it alone is rounded, by its name in `network()`, the worst first.

    Args:
        model: calibrated or trained, giving logits (N, classes).
        inputs: (N, ...) float32.

    Returns:
        Kullback-Leibler divergence of the class probabilities from the unrounded model's, nats per input.

    Raises:
        BuildError: the model's ranges were never observed.
    """
    names = {layer.output: layer.name for layer in model.network().layers}
    found = {}
    with evaluating(model):
        with model.unrounded():
            expected = model(inputs).double().log_softmax(1)
        for step in model.steps:
            with model.unrounded(but=step.key):
                rounded = model(inputs).double().log_softmax(1)
            found[names[step.key]] = max(float((expected.exp() * (expected - rounded)).sum(1).mean()), 0.0)
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def _decibels(signal: Tensor, noise: Tensor) -> float:
    if float(noise) == 0.0:
        return math.inf
    return 10.0 * math.log10(max(float(signal), 1e-30) / float(noise))
