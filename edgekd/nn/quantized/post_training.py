"""Post-training quantization: calibration alone, then equalization and bias correction where they help."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.nn.quantized.bias_correction import correct_biases
from edgekd.nn.quantized.equalization import equalize
from edgekd.nn.quantized.model import QuantizedModel, quantize_model
from edgekd.nn.quantized.observers import OBSERVERS, Observer, calibrate
from edgekd.nn.quantized.scheme import SCHEMES
from edgekd.records import Scheme

ObserverChoice = Literal["auto", "ema", "min-max", "percentile", "mse", "entropy"]
_WIDE: tuple[Observer, ...] = ("ema", "min-max")
"""Sixteen bits have steps to spare: clipping only loses there."""


@dataclass(frozen=True)
class PostTraining:
    """A calibrated model and how it came about.

    `divergence` maps each thing that was tried to the Kullback-Leibler divergence, in nats per input, of its class
    probabilities from the float model's over inputs that it was not calibrated on; the least was kept.
    """

    model: QuantizedModel
    observer: Observer
    equalized: bool
    bias_corrected: bool
    divergence: dict[str, float]


@torch.no_grad()
def post_training_quantize(
    float_model: nn.Module,
    scheme: Scheme,
    batches: Sequence[Tensor],
    held_back: Tensor,
    observer: ObserverChoice = "auto",
) -> PostTraining:
    """Quantize without training, keeping of each technique only what brings the outputs closer to the float model's.

    Args:
        float_model: from (N, ...) to logits (N, classes), in inference mode; left as it is.
        scheme: how weights and activations are stored.
        batches: inputs (N, ...) to calibrate on.
        held_back: inputs (N, ...) that decide between techniques; their labels are not asked.
        observer: one for the ranges, or `auto` to try them all, equalization and bias correction after that.

    Raises:
        BuildError: an operator has no form in the scheme; it is named with its place.
    """
    model = quantize_model(float_model, batches[0][:1], scheme)
    expected = _log_probabilities(float_model, held_back)

    def distance(trial: QuantizedModel) -> float:
        return _divergence(expected, _log_probabilities(trial.eval(), held_back))

    bits = SCHEMES[scheme].activation_bits
    if bits is None:
        model.eval()
        return PostTraining(model, "ema", False, False, {"rounding": distance(model)})
    search = _Search(model, distance)
    wanted = (observer,) if observer != "auto" else (_WIDE if bits == 16 else OBSERVERS)
    for name in wanted:
        search.consider(name, lambda trial, name=name: calibrate(trial, batches, name))  # type: ignore[misc]
    chosen: Observer = next(name for name in OBSERVERS if name == search.kept)
    if observer != "auto":
        return search.result(chosen, False, False)

    def equalization(trial: QuantizedModel) -> bool:
        pairs = equalize(trial, batches)
        calibrate(trial, batches, chosen)
        return pairs > 0

    equalized = search.consider("equalization", equalization)
    corrected = search.consider("bias correction", lambda trial: correct_biases(trial, torch.cat(list(batches))))
    return search.result(chosen, equalized, corrected)


_BATCH = 256


class _Search:
    """Keeps the trial that lies closest to the float model."""

    def __init__(self, model: QuantizedModel, distance: Callable[[QuantizedModel], float]) -> None:
        self.best, self.distance = model, distance
        self.least = float("inf")
        self.kept = ""
        self.tried: dict[str, float] = {}

    def consider(self, name: str, change: Callable[[QuantizedModel], object]) -> bool:
        """Try a change on a copy of the best; `change` returns False where there was nothing to do."""
        trial = copy.deepcopy(self.best)
        if change(trial) is False:
            return False
        found = self.tried[name] = self.distance(trial)
        better = found < self.least
        if better:
            self.best, self.least, self.kept = trial, found, name
        return better

    def result(self, observer: Observer, equalized: bool, corrected: bool) -> PostTraining:
        return PostTraining(self.best.eval(), observer, equalized, corrected, self.tried)


def _log_probabilities(model: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([model(batch) for batch in torch.split(inputs, _BATCH)]).double().log_softmax(1)


def _divergence(expected: Tensor, found: Tensor) -> float:
    return float((expected.exp() * (expected - found)).sum(1).mean())
