"""The fake-quantized model: what QAT trains and what the converters read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.errors import BuildError
from edgekd.nn.quantized.layers import LAYERS, QuantizedLayer, WeightedLayer
from edgekd.nn.quantized.network import Activation, Grid, Layer, Network
from edgekd.nn.quantized.network import Tensor as NetworkTensor
from edgekd.nn.quantized.quantizer import ActivationQuantizer
from edgekd.nn.quantized.rewrite import simplify
from edgekd.nn.quantized.trace import Operation, Trace, trace
from edgekd.records import Scheme

_INPUT = "input"


@dataclass(frozen=True)
class _Step:
    """One layer's wiring. `key` names the layer and the tensor it makes; `inputs` the tensors it reads."""

    key: str
    place: str
    inputs: tuple[str, ...]


class QuantizedModel(nn.Module):
    """A network whose weights, biases and activations lie on the grids that its files will have.

    Batch norms are folded with their running statistics. Training it is an ordinary loop: call `train()`, step
    an optimizer over `parameters()`; ranges follow the activations until `freeze()`. Two models made from the
    same architecture exchange `state_dict`s. With scheme `fp32` nothing is rounded: it is the folded network.
    """

    def __init__(self, traced: Trace, scheme: Scheme) -> None:
        super().__init__()
        self.scheme: Scheme = scheme
        self.layers = nn.ModuleDict()
        self.quantizers = nn.ModuleDict()
        self._grid_of: dict[str, str] = {}
        self._shapes: dict[str, tuple[int, ...]] = {_INPUT: traced.input_shape}
        self._steps: list[_Step] = []
        self._quantized = scheme == "wi8_ai8"
        self._add_grid(_INPUT, "none")
        names = {traced.input: _INPUT}
        for index, operation in enumerate(traced.operations):
            step = self._add_layer(index, operation, names)
            self._steps.append(step)
        self._output = names[traced.output]

    def _add_grid(self, tensor: str, activation: Activation) -> None:
        if self._quantized:
            self.quantizers[tensor] = ActivationQuantizer(activation)
            self._grid_of[tensor] = tensor

    def _add_layer(self, index: int, operation: Operation, names: dict[str, str]) -> _Step:
        kind = LAYERS.get(operation.kind)
        if kind is None:
            raise BuildError(f"no int8 form is known for '{operation.kind}' at {operation.place}")
        key = f"{index:03d}_{operation.kind}"
        inputs = tuple(names[name] for name in operation.inputs)
        names[operation.name] = key
        layer = _layer(kind, operation, quantized=self._quantized)
        self.layers[key] = layer
        self._shapes[key] = operation.shape
        if layer.shares_grid and self._quantized:
            self._grid_of[key] = self._grid_of[inputs[0]]
        else:
            self._add_grid(key, operation.activation)
            layer.saturates = self._quantized
        return _Step(key, operation.place, inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, classes) for inputs (N, ...) float32, as the int8 files compute them."""
        if not self.training:
            self._require_ranges()
        values = {_INPUT: self._on_grid(_INPUT, inputs)}
        for step in self._steps:
            layer = self.layers[step.key]
            scales = [self._scale(name) for name in step.inputs]
            outputs = layer(*(values[name] for name in step.inputs), scales=scales)
            values[step.key] = self._on_grid(step.key, outputs)
        return values[self._output]

    def _quantizer(self, tensor: str) -> ActivationQuantizer | None:
        key = self._grid_of.get(tensor)
        if key is None:
            return None
        quantizer = self.quantizers[key]
        assert isinstance(quantizer, ActivationQuantizer)
        return quantizer

    def _scale(self, tensor: str) -> Tensor | None:
        quantizer = self._quantizer(tensor)
        return None if quantizer is None else quantizer.scale

    def _on_grid(self, tensor: str, values: Tensor) -> Tensor:
        quantizer = self._quantizer(tensor)
        if quantizer is None:
            return values
        if self._grid_of[tensor] != tensor:
            return quantizer.round(values)
        outputs: Tensor = quantizer(values)
        return outputs

    def observe(self, enabled: bool = True) -> None:
        """Let ranges follow the activations in training mode (the default), or hold them."""
        for quantizer in self._each_quantizer():
            quantizer.observing = enabled

    def freeze(self) -> None:
        """Hold the ranges from here on: the last part of QAT trains against fixed grids."""
        self.observe(False)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set the ranges from batches (N, ...) of inputs, without training (post-training quantization)."""
        training = self.training
        self.train()
        self.observe(True)
        for batch in batches:
            self(batch)
        self.train(training)

    def _each_quantizer(self) -> list[ActivationQuantizer]:
        return [module for module in self.quantizers.values() if isinstance(module, ActivationQuantizer)]

    def _require_ranges(self) -> None:
        unset = [name for name in self.quantizers if not self._range_is_set(name)]
        if unset:
            raise BuildError(
                f"no ranges were observed for {unset[0]} (and {len(unset) - 1} more): train or calibrate the model"
            )

    def _range_is_set(self, tensor: str) -> bool:
        quantizer = self._quantizer(tensor)
        return quantizer is None or bool(quantizer.updates.max() > 0)

    @torch.no_grad()
    def network(self) -> Network:
        """The network as plain data, for the converters.

        Raises:
            BuildError: no ranges were observed, or a parameter is not finite.
        """
        self._require_ranges()
        tensors = {name: NetworkTensor(name, shape, self._grid(name)) for name, shape in self._shapes.items()}
        layers = []
        for step in self._steps:
            layer = self.layers[step.key]
            assert isinstance(layer, QuantizedLayer)
            for name, parameter in layer.named_parameters():
                if not torch.isfinite(parameter).all():
                    raise BuildError(f"the {name} of {step.place} ({layer.kind}) is not finite: training diverged")
            constants = layer.constants([self._scale(name) for name in step.inputs])
            layers.append(
                Layer(
                    name=f"{step.key}:{step.place}",
                    kind=layer.kind,
                    inputs=step.inputs,
                    output=step.key,
                    activation=layer.activation,
                    attributes=dict(layer.attributes),
                    **constants,
                )
            )
        return Network(self.scheme, tensors, tuple(layers), _INPUT, self._output)

    def _grid(self, tensor: str) -> Grid | None:
        quantizer = self._quantizer(tensor)
        return None if quantizer is None else quantizer.grid()


def _layer(kind: type[QuantizedLayer], operation: Operation, quantized: bool) -> QuantizedLayer:
    if issubclass(kind, WeightedLayer):
        return kind(
            operation.parameters["weight"],
            operation.parameters.get("bias"),
            quantized,
            activation=operation.activation,
            **operation.attributes,
        )
    return kind(activation=operation.activation, **operation.attributes)


def quantize_model(model: nn.Module, example: Tensor, scheme: Scheme = "wi8_ai8") -> QuantizedModel:
    """A fake-quantized copy of a float model, on the same device, with batch norms folded.

    Args:
        model: any module from (N, ...) float32 to (N, classes); it is traced in inference mode and left as it is.
        example: one input or a batch of them, (N, ...) float32; only its shape matters.
        scheme: `wi8_ai8`, or `fp32` for the folded network without rounding.

    Raises:
        BuildError: an operator has no int8 form (named, with its place), or the model cannot be traced.
    """
    if scheme not in ("wi8_ai8", "fp32"):
        raise BuildError(f"scheme {scheme} is not built yet: use wi8_ai8 or fp32")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return QuantizedModel(simplify(trace(model, example)), scheme).to(device)
