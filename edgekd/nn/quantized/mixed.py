"""Mixed precision: the layers whose rounding does most damage are kept in float until accuracy holds.

Greedy from the ranking of `noise.layer_damage`. A layer kept in float alone still has its output rounded for those
that read it, so with each layer the trial is made of keeping its readers too, and the smaller set is taken where it
does at least half as much. A layer that buys nothing by itself (one of two that are added, say, while the other is
still rounded) is tried again together with those that follow it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekd.nn.quantized.islands import beyond
from edgekd.nn.quantized.layers import WeightedLayer
from edgekd.nn.quantized.model import QuantizedModel
from edgekd.nn.quantized.noise import layer_damage

MOST_KEPT = 0.5
"""Share of the steps beyond which the search gives up: such a file is a float file with int8 islands."""
_ENOUGH = 0.5


@dataclass(frozen=True, slots=True)
class Addition:
    """What keeping one ranked layer in float, with its readers where that pays, bought when it was added.

    `steps` are keys of the model's steps, the ranked one first (of several that only help together the last, whose
    damage is the least). Accuracies are shares; divergences are of the class probabilities from the unrounded model's,
    nats per input; `more_bytes` is what float weights add to a file.
    """

    steps: tuple[str, ...]
    damage: float
    accuracy_before: float
    accuracy: float
    divergence_before: float
    divergence: float
    more_bytes: int


@dataclass(frozen=True)
class Mixed:
    """The model with its kept layers. `holds`: it reaches the accuracy that was wanted."""

    model: QuantizedModel
    additions: tuple[Addition, ...]
    accuracy: float
    holds: bool


@torch.no_grad()
def keep_worst_in_float(
    model: QuantizedModel, inputs: Tensor, accuracy: Callable[[QuantizedModel], float], wanted: float
) -> Mixed:
    """Keep the worst layers in float, one after the other, until `accuracy` reaches `wanted`; then drop needless ones.

    Args:
        model: calibrated or trained `wi8_ai8`; left as it is.
        inputs: (N, ...) float32 that rank the layers and tell whether an addition helps; no labels are asked.
        accuracy: of a model in inference mode, over a split that training and the test do not share.
        wanted: the least accuracy.

    Raises:
        BuildError: the model is of another scheme, or its ranges were never observed.
    """
    search = _Search(model.eval(), inputs, accuracy)
    found, additions = search.accuracy(model), []
    ranked = list(layer_damage(model, inputs).items())
    most = max(1, round(MOST_KEPT * len(model.steps)))
    kept: set[str] = set()
    waiting: list[str] = []
    for name, damage in ranked:
        key = name.split(":", 1)[0]
        if found >= wanted or damage == 0.0:
            break
        if key in kept | model.float_steps:
            continue
        addition = search.addition((key,), kept, damage, found, most)
        if addition is None and waiting:
            addition = search.addition((key, *waiting), kept, damage, found, most)
        if addition is None:
            waiting.append(key)
            continue
        additions.append(addition)
        kept.update(addition.steps)
        waiting = [other for other in waiting if other not in kept]
        found = addition.accuracy
    for needless in sorted(additions, key=lambda entry: entry.divergence_before - entry.divergence):
        rest = [entry for entry in additions if entry is not needless]
        without = search.accuracy(search.trial(step for entry in rest for step in entry.steps))
        if found >= wanted and without >= wanted:
            additions, found = rest, without
    final = search.trial(step for entry in additions for step in entry.steps)
    return Mixed(final, tuple(additions), found, found >= wanted)


class _Search:
    def __init__(self, model: QuantizedModel, inputs: Tensor, accuracy: Callable[[QuantizedModel], float]) -> None:
        self.model, self.inputs, self.accuracy = model, inputs, accuracy
        self.moves = {step.key for step in model.steps if model.layer(step).grid_rule == "input"}
        exact = copy.deepcopy(model)
        exact.drop_corrections()
        with exact.unrounded():
            self.expected = _log_probabilities(exact, inputs)

    def trial(self, steps: Iterable[str]) -> QuantizedModel:
        """A copy of the model with these steps in float."""
        model = copy.deepcopy(self.model)
        model.keep_float(steps)
        return model

    def addition(
        self, keys: tuple[str, ...], kept: set[str], damage: float, accuracy: float, most: int
    ) -> Addition | None:
        """What keeping layers buys, alone or with their readers; None where it buys nothing, or more than `most` are.

        Args:
            keys: of the layers; `damage` is the first's.
            kept: what is in float already, with `accuracy`.
            damage: nats.
            accuracy: a share.
            most: how many may be in float in all.
        """
        before = self._divergence(self.trial(kept))
        chosen: tuple[float, frozenset[str], QuantizedModel] | None = None
        readers = frozenset[str]().union(*(beyond(self.model.steps, key, self.moves) for key in keys)) - kept
        alone = all(self._stands_alone(key, kept | set(keys)) for key in keys)
        for steps in (frozenset(keys), readers) if alone else (readers,):
            if len(kept) + len(steps) > most:
                continue
            model = self.trial(kept | steps)
            found = self._divergence(model)
            if chosen is None or before - chosen[0] < _ENOUGH * (before - found):
                chosen = found, steps, model
        if chosen is None or chosen[0] >= before:
            return None
        divergence, steps, model = chosen
        return Addition(
            steps=(keys[0], *sorted(steps - {keys[0]})),
            damage=damage,
            accuracy_before=accuracy,
            accuracy=self.accuracy(model),
            divergence_before=before,
            divergence=divergence,
            more_bytes=sum(_more_bytes(model, step) for step in steps),
        )

    def _stands_alone(self, key: str, kept: set[str]) -> bool:
        """Whether a runtime computes the layer in float without its readers.

        Between a dequantize and a quantize node onnxruntime takes a layer without weights for an int8 one.
        """
        step = next(step for step in self.model.steps if step.key == key)
        beside = set(step.inputs) | set(self.model.islands.readers.get(key, ()))
        return isinstance(self.model.layer(step), WeightedLayer) or bool(beside & kept)

    def _divergence(self, model: QuantizedModel) -> float:
        difference = self.expected - _log_probabilities(model, self.inputs)
        return max(float((self.expected.exp() * difference).sum(1).mean()), 0.0)


def _log_probabilities(model: QuantizedModel, inputs: Tensor) -> Tensor:
    outputs: Tensor = model(inputs)
    return outputs.double().log_softmax(1)


def _more_bytes(model: QuantizedModel, key: str) -> int:
    """Four bytes a weight in place of one and its share of the scales; biases have four either way."""
    layer = model.layers[key]
    return 3 * layer.weight.numel() - 4 * len(layer.weight) if isinstance(layer, WeightedLayer) else 0
