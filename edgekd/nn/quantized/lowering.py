"""From a fake-quantized model to the network that the converters read: plain data, borders written out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgekd.errors import BuildError
from edgekd.nn.quantized.islands import floated, rounded
from edgekd.nn.quantized.network import Layer, Network, Tensor

if TYPE_CHECKING:
    from edgekd.nn.quantized.islands import Step
    from edgekd.nn.quantized.layers import QuantizedLayer
    from edgekd.nn.quantized.model import QuantizedModel


def lower(model: QuantizedModel) -> Network:
    """The network of a model whose ranges are set.

    Raises:
        BuildError: a parameter is not finite.
    """
    return _Lowering(model).network()


class _Lowering:
    def __init__(self, model: QuantizedModel) -> None:
        self.model, self.islands = model, model.islands
        self.tensors: dict[str, Tensor] = {}
        self.layers: list[Layer] = []

    def network(self) -> Network:
        model = self.model
        self._publish(model.input, "the input")
        for step in model.steps:
            layer = model.layer(step)
            _require_finite(step, layer)
            inputs = tuple(self._read(step, name) for name in step.inputs)
            described = layer.describe(model.scales(step))
            name = f"{step.key}:{step.place}"
            self.layers.append(
                Layer(name=name, inputs=inputs, output=step.key, activation=layer.activation, **described)
            )
            self._publish(step.key, step.place)
        output = rounded(model.output) if self.islands.is_float(model.output) else model.output
        if self.islands.float_io:
            output = self._dequantized(output, "the output")
        return Network(model.scheme, self.tensors, tuple(self.layers), model.input, output)

    def _publish(self, name: str, place: str) -> None:
        """Declare a tensor, with its copy on the grid where it is made in float and read as integers."""
        shape, grid = self.model.shapes[name], self.model.grid(name)
        if not self.islands.is_float(name):
            self.tensors[name] = Tensor(name, shape, grid)
            return
        self.tensors[name] = Tensor(name, shape, integer=name == self.model.input and bool(self.islands.ids))
        if self.islands.needs_rounding(name, self.model.output):
            copy = rounded(name)
            self.tensors[copy] = Tensor(copy, shape, grid)
            self.layers.append(Layer(f"{copy}:{place}", "quantize", (name,), copy))

    def _read(self, step: Step, name: str) -> str:
        read = self.islands.read_as(step.key, name)
        needs_float = step.key in self.islands.steps and not self.islands.is_float(name)
        return self._dequantized(read, step.place) if needs_float else read

    def _dequantized(self, name: str, place: str) -> str:
        copy = floated(name)
        if copy not in self.tensors:
            self.tensors[copy] = Tensor(copy, self.tensors[name].shape)
            self.layers.append(Layer(f"{copy}:{place}", "dequantize", (name,), copy))
        return copy


def _require_finite(step: Step, layer: QuantizedLayer) -> None:
    for name, parameter in layer.named_parameters():
        if not torch.isfinite(parameter).all():
            raise BuildError(f"the {name} of {step.place} ({layer.kind}) is not finite: training diverged")
