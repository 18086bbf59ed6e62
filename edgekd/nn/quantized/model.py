"""The fake-quantized model: what QAT trains and what the converters read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgekd.errors import BuildError
from edgekd.nn.quantized.grids import shared_grids
from edgekd.nn.quantized.islands import Islands, Step, readers_of, rounded
from edgekd.nn.quantized.layers import LAYERS, QuantizedLayer, WeightedLayer
from edgekd.nn.quantized.layers.base import Scales
from edgekd.nn.quantized.layers.build import built_layer
from edgekd.nn.quantized.network import Grid, Network
from edgekd.nn.quantized.operations import Trace
from edgekd.nn.quantized.quantizer import ActivationQuantizer
from edgekd.nn.quantized.rewrite import simplify
from edgekd.nn.quantized.scheme import SCHEMES
from edgekd.nn.quantized.settling import settle_scales
from edgekd.nn.quantized.trace import trace
from edgekd.records import Scheme

INPUT = "input"


Visit = Callable[[Step, QuantizedLayer, tuple[Tensor, ...], Scales], None]


class QuantizedModel(nn.Module):
    """A network whose weights, biases and activations lie on the grids that its files will have.

    Batch norms are folded with their running statistics, dropout is gone. Training it is an ordinary loop: call
    `train()`, step an optimizer over `parameters()`; ranges follow the activations until `freeze()`. Two models
    made from the same architecture exchange `state_dict`s. With scheme `fp32` nothing is rounded: it is the
    folded network. Single steps may be kept in float (`keep_float`).
    """

    input = INPUT

    def __init__(self, traced: Trace, scheme: Scheme) -> None:
        super().__init__()
        self._scheme: Scheme = scheme
        self._spec = SCHEMES[scheme]
        self._ranges_are_set = False
        self._output_rank = traced.output_rank
        names = {traced.input: INPUT}
        for index, operation in enumerate(traced.operations):
            names[operation.name] = f"{index:03d}_{operation.kind}"
        self.steps = tuple(
            Step(names[operation.name], operation.place, tuple(names[name] for name in operation.inputs))
            for operation in traced.operations
        )
        self.shapes = {INPUT: traced.input_shape}
        self.shapes.update({names[operation.name]: operation.shape for operation in traced.operations})
        self.output = names[traced.output]
        ids = frozenset(names[operation.name] for operation in traced.operations if operation.kind == "embedding")
        self.islands = Islands(input=INPUT, ids=ids, readers=readers_of(self.steps))
        if ids and ids != frozenset(self.islands.readers[INPUT]):
            raise BuildError("the input is read both as ids, by an embedding, and as numbers: give it one meaning")
        self.layers = nn.ModuleDict(
            {names[operation.name]: built_layer(operation, self._spec) for operation in traced.operations}
        )
        self.quantizers = nn.ModuleDict()
        self._grid_of: dict[str, str] = {}
        self._member_of: dict[str, int] = {}
        if self._spec.activation_bits is not None:
            self._add_grids(traced, names)

    def _add_grids(self, traced: Trace, names: dict[str, str]) -> None:
        for grid in shared_grids(traced):
            key = names[grid.tensors[0]]
            bits, symmetric = self._spec.activation_bits or 8, self._spec.symmetric
            quantizer = ActivationQuantizer(grid.activation, len(grid.members), bits, symmetric)
            if grid.fixed is not None and not symmetric:
                quantizer.fix(grid.fixed)
            elif grid.fixed is not None and bits == 16:
                quantizer.fix(Grid(2.0**-15, 0, 16))
            self.quantizers[key] = quantizer
            self._grid_of.update({names[tensor]: key for tensor in grid.tensors})
            self._member_of.update({names[tensor]: member for member, tensor in enumerate(grid.members)})
        for step in self.steps:
            layer = self.layer(step)
            shared = self.quantizer(step.key)
            layer.saturates = shared is not None and shared.activation == layer.activation and not shared.symmetric

    @property
    def scheme(self) -> Scheme:
        """How weights and activations are stored: `wi8_ai8_mixed` where some layers are kept in float."""
        if self.islands.steps:
            return "wi8_ai8_mixed"
        return "wi8_ai8" if self.may_mix else self._scheme

    @property
    def may_mix(self) -> bool:
        """Whether operators without an int8 form may be kept in float."""
        return self._scheme == "wi8_ai8_mixed"

    @property
    def float_steps(self) -> frozenset[str]:
        """The keys of the steps that compute in float between integer ones."""
        return self.islands.steps

    @property
    def float_places(self) -> tuple[str, ...]:
        """The same steps by their place in the user's module and their kind, in the order of execution."""
        return tuple(f"{step.place} ({self.layer(step).kind})" for step in self.steps if step.key in self.float_steps)

    def keep_float(self, steps: Iterable[str]) -> None:
        """Compute these steps (their keys) in float from here on, besides those that already do.

        Where that changes anything, bias correction is taken back in every layer.

        Raises:
            BuildError: the scheme is not `wi8_ai8`; only its files mix.
        """
        kept = self.islands.steps | frozenset(steps)
        if kept and self._scheme not in ("wi8_ai8", "wi8_ai8_mixed"):
            raise BuildError(f"only wi8_ai8 keeps single layers in float, not {self._scheme}")
        for step in self.steps:
            layer = self.layer(step)
            if step.key in kept:
                layer.saturates = False
                if isinstance(layer, WeightedLayer):
                    layer.scheme = SCHEMES["fp32"]
        if kept - self.islands.steps:
            self.drop_corrections()
        self.islands = replace(self.islands, steps=kept)

    def drop_corrections(self) -> None:
        """Take back what bias correction did: it made up for a rounding that is no longer the same."""
        for layer in self.layers.values():
            if isinstance(layer, WeightedLayer):
                layer.drop_correction()

    def use_float_io(self) -> None:
        """Give the .tflite file a float input and output, quantized and dequantized inside; .onnx has them anyway.

        Raises:
            BuildError: the scheme's activations are float already.
        """
        if self._spec.activation_bits is None:
            raise BuildError(f"{self._scheme} has a float input and output anyway")
        self.islands = replace(self.islands, float_io=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, classes) for inputs (N, ...) float32, as the files compute them; signals may have height 1."""
        values = self.activations(inputs)
        outputs = values[rounded(self.output) if self.islands.is_float(self.output) else self.output]
        return outputs.squeeze(2) if self._output_rank == 3 else outputs

    def activations(self, inputs: Tensor, visit: Visit | None = None) -> dict[str, Tensor]:
        """Every tensor of one pass over inputs (N, ...), by its name in `network()`, on its grid where it has one.

        Of tensors made in float both are there, and the copy on the grid where somebody reads it.

        `visit` is called before each layer with its step, the layer, its inputs and the scales.
        """
        if not self.training:
            self._require_ranges()
        if inputs.dim() == 3:
            inputs = inputs.unsqueeze(2)
        values: dict[str, Tensor] = {}
        self._publish(values, INPUT, inputs)
        for step in self.steps:
            scales = self.scales(step)
            layer = self.layer(step)
            sources = tuple(values[self.islands.read_as(step.key, name)] for name in step.inputs)
            if visit is not None:
                visit(step, layer, sources, scales)
            self._publish(values, step.key, layer(*sources, scales=scales))
        return values

    def _publish(self, values: dict[str, Tensor], tensor: str, made: Tensor) -> None:
        if not self.islands.is_float(tensor):
            values[tensor] = self._on_grid(tensor, made)
            return
        values[tensor] = made
        # Ranges follow the values of every tensor, so that a layer may go back to integers.
        if self.training or self.islands.needs_rounding(tensor, self.output):
            values[rounded(tensor)] = self._on_grid(tensor, made)

    def scales(self, step: Step) -> Scales:
        """The scales of what a step reads and makes: none where those are floats."""
        if step.key in self.islands.steps:
            return Scales((None,) * len(step.inputs))
        return Scales(tuple(self._scale(name) for name in step.inputs), self._scale(step.key))

    @contextmanager
    def unrounded(self, but: str | None = None) -> Iterator[None]:
        """Within it the model computes in float with its present weights: the reference for quantization noise.

        `but` is the output of one layer that still rounds: its weights, and what it gives.
        """
        layers = [(step.key, self.layer(step)) for step in self.steps]
        before = [(layer.saturates, getattr(layer, "scheme", None)) for _, layer in layers]
        grids, self._grid_of = self._grid_of, {key: grid for key, grid in self._grid_of.items() if key == but}
        for key, layer in layers:
            if key != but:
                layer.saturates = False
                if isinstance(layer, WeightedLayer):
                    layer.scheme = SCHEMES["fp32"]
        try:
            yield
        finally:
            self._grid_of = grids
            for (_, layer), (saturates, scheme) in zip(layers, before, strict=True):
                layer.saturates = saturates
                if isinstance(layer, WeightedLayer) and scheme is not None:
                    layer.scheme = scheme

    def layer(self, step: Step) -> QuantizedLayer:
        """The layer of a step."""
        layer = self.layers[step.key]
        assert isinstance(layer, QuantizedLayer)
        return layer

    def quantizer(self, tensor: str) -> ActivationQuantizer | None:
        """What puts a tensor on its grid, shared by all tensors on it; None where the scheme has none."""
        key = self._grid_of.get(tensor)
        if key is None:
            return None
        quantizer = self.quantizers[key]
        assert isinstance(quantizer, ActivationQuantizer)
        return quantizer

    def has_own_grid(self, tensor: str) -> bool:
        """Whether no other tensor lies on a tensor's grid."""
        return list(self._grid_of.values()).count(self._grid_of[tensor]) == 1

    def _scale(self, tensor: str) -> Tensor | None:
        quantizer = self.quantizer(tensor)
        return None if quantizer is None else quantizer.scale

    def _on_grid(self, tensor: str, values: Tensor) -> Tensor:
        quantizer = self.quantizer(tensor)
        if quantizer is None:
            return values
        member = self._member_of.get(tensor)
        if member is None:
            return quantizer.round(values)
        outputs: Tensor = quantizer(values, member)
        return outputs

    def observe(self, enabled: bool = True) -> None:
        """Let ranges follow the activations in training mode (the default), or hold them."""
        for key in self.quantizers:
            quantizer = self.quantizer(key)
            if quantizer is not None:
                quantizer.observing = enabled

    def freeze(self) -> None:
        """Hold the ranges from here on: the last part of QAT trains against fixed grids."""
        self.observe(False)
        self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Nudge int8 scales, by a percent or so, to where every runtime computes sums and leaky ReLUs alike."""
        if self._spec.activation_bits == 8 and not self._spec.symmetric:
            settle_scales(self)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set the ranges from batches (N, ...) of inputs, without training (post-training quantization)."""
        training = self.training
        self.train()
        self.observe(True)
        for batch in batches:
            self(batch)
        self.settle()
        self.train(training)

    def grid_members(self) -> dict[str, str]:
        """For each tensor whose values set a range: the grid's name. Grids that kernels dictate are left out."""
        members = {name: self._grid_of[name] for name in self._member_of}
        return {name: key for name, key in members.items() if not self._fixed(key)}

    def _fixed(self, key: str) -> bool:
        quantizer = self.quantizer(key)
        return quantizer is None or quantizer.fixed

    def set_range(self, grid: str, low: float, high: float) -> None:
        """Give a grid of `grid_members` the range `low` to `high`; 0 is always in it."""
        quantizer = self.quantizer(grid)
        assert quantizer is not None
        quantizer.set_range(low, high)

    def reset_ranges(self) -> None:
        """Forget what was observed, so that calibration starts anew."""
        for key in self.quantizers:
            quantizer = self.quantizer(key)
            if quantizer is not None:
                quantizer.updates.zero_()

    def _require_ranges(self) -> None:
        if self._ranges_are_set:
            return
        unset = [key for key in self.quantizers if not self._is_set(key)]
        if unset:
            raise BuildError(
                f"no ranges were observed for {unset[0]} (and {len(unset) - 1} more): train or calibrate the model"
            )
        self._ranges_are_set = True

    def _is_set(self, tensor: str) -> bool:
        quantizer = self.quantizer(tensor)
        return quantizer is None or quantizer.is_set

    @torch.no_grad()
    def network(self) -> Network:
        """The network as plain data, for the converters.

        Raises:
            BuildError: no ranges were observed, or a parameter is not finite.
        """
        self._require_ranges()
        from edgekd.nn.quantized.lowering import lower

        return lower(self)

    def grid(self, tensor: str) -> Grid | None:
        """The grid of a tensor; None where the scheme has none."""
        quantizer = self.quantizer(tensor)
        return None if quantizer is None else quantizer.grid()


def quantize_model(model: nn.Module, example: Tensor, scheme: Scheme = "wi8_ai8") -> QuantizedModel:
    """A fake-quantized copy of a float model, on the same device, with batch norms folded.

    Args:
        model: any module from (N, ...) float32 to (N, classes); it is traced in inference mode and left as it is.
        example: one input or a batch of them, (N, ...) float32; only its shape matters.
        scheme: how weights and activations are stored; `fp32` is the folded network without rounding, and
            `wi8_ai8_mixed` is `wi8_ai8` with leave to keep in float what has no int8 form.

    Raises:
        BuildError: an operator has no int8 form (named, with its place), or the model cannot be traced.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    integers = SCHEMES[scheme].activation_bits is not None
    traced = simplify(trace(model, example), quantized=integers)
    for operation in traced.operations:
        if operation.kind not in LAYERS:
            raise BuildError(f"no form is known for {operation.call}, in int8 or float: replace it")
    quantized = QuantizedModel(traced, scheme)
    if integers:
        _keep_what_has_no_form(quantized, traced)
    return quantized.to(device)


def _keep_what_has_no_form(model: QuantizedModel, traced: Trace) -> None:
    """Keep in float what has no int8 form, where the scheme gives leave.

    Raises:
        BuildError: it does not.
    """
    kept = []
    for step, operation in zip(model.steps, traced.operations, strict=True):
        if model.layer(step).in_float_only:
            kept.append(step.key)
            if not model.may_mix:
                raise BuildError(
                    f"no int8 form is known for {operation.call}: replace it, "
                    "or keep it in float with --allow-float-ops (wi8_ai8 only)"
                )
    model.keep_float(kept)
