"""From any torch module to a flat list of operations, through `torch.export`.

Signals (N, C, L) are images of height 1 here, (N, C, 1, L), because TFLite has no one-dimensional convolution.
"""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.errors import BuildError
from edgekd.nn.quantized.network import Activation


@dataclass(frozen=True)
class Operation:
    """One call of the traced module. `shape` is its output's, batch 1; `parameters` are its constant tensors."""

    name: str
    kind: str
    place: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    parameters: dict[str, Tensor] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    activation: Activation = "none"
    call: str = ""
    """The ATen call it comes from and its place, for messages."""


@dataclass(frozen=True)
class Trace:
    """Operations in execution order, from one input to one output. The ranks are the user's, signals being 3."""

    operations: tuple[Operation, ...]
    input: str
    input_shape: tuple[int, ...]
    output: str
    input_rank: int
    output_rank: int

    def users(self) -> dict[str, list[Operation]]:
        """Who reads each tensor; the output has itself no reader."""
        readers: dict[str, list[Operation]] = {}
        for operation in self.operations:
            for name in operation.inputs:
                readers.setdefault(name, []).append(operation)
        return readers


class Call:
    """One call of the exported graph: its arguments by their schema names, and what is known of its output."""

    def __init__(self, node: fx.Node, constants: dict[str, Tensor]) -> None:
        self.node = node
        self._constants = constants
        target: Any = node.target
        names = [argument.name for argument in target._schema.arguments]
        self._values = {argument.name: argument.default_value for argument in target._schema.arguments}
        self._values.update(zip(names, node.args, strict=False))
        self._values.update(node.kwargs)

    def __getitem__(self, name: str) -> Any:
        """The value of an argument: a number, a list, or a node."""
        return self._values[name]

    def first(self) -> str:
        """The name of the first argument, which ATen calls `self` or `input`."""
        name: str = next(iter(self._values))
        return name

    def error(self, reason: str) -> BuildError:
        """The error to raise where this call cannot be quantized for `reason`."""
        return BuildError(f"{describe(self.node)}: {reason}")

    def constant(self, name: str) -> Tensor | None:
        """The constant tensor passed for `name`, or None where none was passed."""
        value = self._values[name]
        if value is None:
            return None
        if not isinstance(value, fx.Node) or value.name not in self._constants:
            raise self.error(f"'{name}' is computed from the input; it must be a parameter")
        return self._constants[value.name]

    def constants(self, *names: str) -> dict[str, Tensor]:
        """The constant tensors that were passed for `names`."""
        return {name: tensor for name in names if (tensor := self.constant(name)) is not None}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor argument, as `shape_of` gives it."""
        return shape_of(self._values[name])

    def rank(self, name: str) -> int:
        """How many dimensions the user's tensor has."""
        return len(self._values[name].meta["val"].shape)

    def operation(self, kind: str, *inputs: str, **fields: Any) -> Operation:
        """An operation of this node over the tensor arguments named `inputs`."""
        values: list[Any] = []
        for name in inputs:
            value = self._values[name]
            values.extend(value if isinstance(value, (list, tuple)) else [value])
        for value in values:
            if not isinstance(value, fx.Node) or value.name in self._constants:
                raise self.error("one of its inputs is a constant, which has no int8 form there")
        names = tuple(value.name for value in values)
        place, shape = place_of(self.node), shape_of(self.node)
        return Operation(self.node.name, kind, place, names, shape, call=describe(self.node), **fields)


def place_of(node: fx.Node) -> str:
    """Where in the user's module a call stands, as an attribute path; "the model itself" at the top."""
    stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return (stack[-1] if stack else "") or "the model itself"


def describe(node: fx.Node) -> str:
    """The operator, its place and its module's class, for messages."""
    kind = [getattr(kind, "__name__", str(kind)) for _, kind in node.meta.get("nn_module_stack", {}).values()]
    owner = f" ({kind[-1].rsplit('.', 1)[-1]})" if kind else ""
    return f"{node.target} at {place_of(node)}{owner}"


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The output's shape for one input: batch 1, signals as images of height 1, the rest as traced."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dim() < 1:
        raise BuildError(f"{describe(node)}: gives no tensor of a batch; edgekd supports one tensor per operator")
    rest = value.shape[1:]
    if not all(isinstance(size, int) for size in rest) or isinstance(value.shape[0], int):
        raise BuildError(f"{describe(node)}: the batch must stay the first dimension, but the shape is {value.shape}")
    return _as_image((1, *(int(size) for size in rest)))


def _as_image(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], shape[1], 1, shape[2]) if len(shape) == 3 else shape


def trace(model: nn.Module, example: Tensor) -> Trace:
    """The operations of `model` in inference mode for inputs shaped like `example` (N, ...), N free.

    Raises:
        BuildError: the module cannot be exported, or holds an operator without a rule; both are named.
    """
    program = _export(model, example)
    constants = _constants(program)
    operations: list[Operation] = []
    source, result, rank = "", "", 0
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name not in constants:
            source = node.name
        elif node.op == "output":
            outputs = node.args[0]
            if len(outputs) != 1:
                raise BuildError(f"the model gives {len(outputs)} outputs; edgekd quantizes models with one")
            result, rank = outputs[0].name, outputs[0].meta["val"].dim()
        elif node.op == "call_function":
            operations += _operations_of(node, constants)
    shape = _as_image((1, *example.shape[1:]))
    return Trace(tuple(operations), source, shape, result, example.dim(), rank)


def _operations_of(node: fx.Node, constants: dict[str, Tensor]) -> list[Operation]:
    """The operation of one call; none where it is a constant, size arithmetic, or a list that is picked from."""
    from edgekd.nn.quantized.rules import LIST_RULES, RULES

    value = node.meta.get("val")
    if node.target is operator.getitem:
        source, index = node.args
        rule = LIST_RULES[str(source.target)]  # type: ignore[union-attr]
        return [rule(Call(source, constants), node, int(index))]  # type: ignore[arg-type]
    if isinstance(value, (list, tuple)) and str(node.target) in LIST_RULES:
        return []
    if not isinstance(value, (Tensor, list, tuple)):
        return []
    if all(read.name in constants for read in node.all_input_nodes):
        constants[node.name] = _evaluate(node, constants)
        return []
    if str(node.target) not in RULES:
        raise BuildError(f"no form is known for {describe(node)}, in int8 or float: replace it, or ask for its support")
    return [RULES[str(node.target)](Call(node, constants))]


def _evaluate(node: fx.Node, constants: dict[str, Tensor]) -> Tensor:
    target: Any = node.target
    arguments, keywords = fx.map_arg((node.args, node.kwargs), lambda read: constants[read.name])
    with torch.no_grad():
        value: Tensor = target(*arguments, **keywords)
    return value


_EXPORT_ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, LookupError)
"""What comes out of torch.export: its own errors (RuntimeErrors), and whatever the user's forward raises."""


def _export(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Export a CPU copy in inference mode, the batch left free. A batch of 1 would be taken as fixed, so it is 2."""
    module = copy.deepcopy(model).cpu().eval()
    inputs = example[:1].detach().cpu().expand(2, *example.shape[1:]).contiguous()
    try:
        with torch.no_grad():
            return torch.export.export(module, (inputs,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False)
    except _EXPORT_ERRORS as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        shape = ", ".join(map(str, example.shape[1:]))
        raise BuildError(
            f"{type(model).__name__} cannot be traced for inputs (N, {shape}), N free: {reason}"
        ) from error


def _constants(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    signature = program.graph_signature
    values: dict[str, Any] = {}
    for name, path in {**signature.inputs_to_parameters, **signature.inputs_to_buffers}.items():
        values[name] = program.state_dict[path] if path in program.state_dict else program.constants[path]
    for name, path in signature.inputs_to_lifted_tensor_constants.items():
        values[name] = program.constants[path]
    return values
