"""From any torch module to a flat list of operations, through `torch.export`.

Each rule turns one ATen call into an `Operation`. What has no rule is a BuildError that names the operator and
its place in the user's module.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True)
class Trace:
    """Operations in execution order, from one input to one output."""

    operations: tuple[Operation, ...]
    input: str
    input_shape: tuple[int, ...]
    output: str

    def users(self) -> dict[str, list[Operation]]:
        """Who reads each tensor; the output has itself no reader."""
        readers: dict[str, list[Operation]] = {}
        for operation in self.operations:
            for name in operation.inputs:
                readers.setdefault(name, []).append(operation)
        return readers


class _Arguments:
    """The arguments of a call by their schema names, defaults filled in; constant tensors resolved."""

    def __init__(self, node: fx.Node, constants: dict[str, Tensor]) -> None:
        self.node = node
        self._constants = constants
        target: Any = node.target
        self._values = {argument.name: argument.default_value for argument in target._schema.arguments}
        names = [argument.name for argument in target._schema.arguments]
        self._values.update(zip(names, node.args, strict=False))
        self._values.update(node.kwargs)

    def __getitem__(self, name: str) -> Any:
        """The value of an argument: a number, a list, or a node."""
        return self._values[name]

    def constant(self, name: str) -> Tensor | None:
        """The constant tensor passed for `name`, or None where none was passed."""
        value = self._values[name]
        if value is None:
            return None
        if not isinstance(value, fx.Node) or value.name not in self._constants:
            raise BuildError(f"{describe(self.node)}: '{name}' is computed from the input; it must be a parameter")
        return self._constants[value.name]

    def dynamic(self, *names: str) -> tuple[str, ...]:
        """The names of the tensors passed for `names`, which must depend on the model's input."""
        values = [self._values[name] for name in names]
        for name, value in zip(names, values, strict=True):
            if not isinstance(value, fx.Node) or value.name in self._constants:
                raise BuildError(f"{describe(self.node)}: '{name}' is a constant, which edgekd cannot quantize there")
        return tuple(value.name for value in values)

    def operation(self, kind: str, *inputs: str, **fields: Any) -> Operation:
        """An operation of this node over the tensor arguments named `inputs`."""
        return Operation(
            self.node.name, kind, place_of(self.node), self.dynamic(*inputs), shape_of(self.node), **fields
        )


Rule = Callable[[_Arguments], Operation]


def place_of(node: fx.Node) -> str:
    """Where in the user's module a call stands, as an attribute path; "the model itself" at the top."""
    stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return (stack[-1] if stack else "") or "the model itself"


def describe(node: fx.Node) -> str:
    """The operator and its place, for messages."""
    kind = [getattr(kind, "__name__", str(kind)) for _, kind in node.meta.get("nn_module_stack", {}).values()]
    owner = f" ({kind[-1].rsplit('.', 1)[-1]})" if kind else ""
    return f"{node.target} at {place_of(node)}{owner}"


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The output's shape for one input: batch 1, the rest as traced."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dim() < 1:
        raise BuildError(f"{describe(node)}: gives no tensor of a batch; edgekd supports one tensor per operator")
    rest = value.shape[1:]
    if not all(isinstance(size, int) for size in rest) or isinstance(value.shape[0], int):
        raise BuildError(f"{describe(node)}: the batch must stay the first dimension, but the shape is {value.shape}")
    return (1, *(int(size) for size in rest))


def _pair(value: Any) -> tuple[int, int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return (int(values[0]), int(values[-1]))


def _convolution(call: _Arguments) -> Operation:
    weight = call.constant("weight")
    assert weight is not None
    dilation, padding = _pair(call["dilation"]), call["padding"]
    if padding == "same":
        totals = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
        sides = (totals[0] // 2, totals[0] - totals[0] // 2, totals[1] // 2, totals[1] - totals[1] // 2)
    else:
        height, width = (0, 0) if padding == "valid" else _pair(padding)
        sides = (height, height, width, width)
    parameters = {"weight": weight}
    bias = call.constant("bias")
    if bias is not None:
        parameters["bias"] = bias
    attributes = {
        "stride": _pair(call["stride"]),
        "padding": sides,
        "dilation": dilation,
        "groups": int(call["groups"]),
    }
    return call.operation("conv", "input", parameters=parameters, attributes=attributes)


def _linear(call: _Arguments) -> Operation:
    parameters = {name: tensor for name in ("weight", "bias") if (tensor := call.constant(name)) is not None}
    if len(shape_of(call.node)) != 2:
        raise BuildError(f"{describe(call.node)}: only linear layers over (N, features) are supported so far")
    return call.operation("linear", "input", parameters=parameters)


def _batch_norm(call: _Arguments) -> Operation:
    parameters = {
        name: tensor
        for name in ("weight", "bias", "running_mean", "running_var")
        if (tensor := call.constant(name)) is not None
    }
    if "running_mean" not in parameters:
        raise BuildError(f"{describe(call.node)}: no running statistics, so it cannot be folded")
    return call.operation("batch_norm", "input", parameters=parameters, attributes={"eps": float(call["eps"])})


def _add(call: _Arguments) -> Operation:
    if call["alpha"] != 1:
        raise BuildError(f"{describe(call.node)}: alpha must be 1, but is {call['alpha']}")
    operation = call.operation("add", "self", "other")
    _require_same_shape(call, "self", "other")
    return operation


def _require_same_shape(call: _Arguments, *names: str) -> None:
    shapes = [shape_of(call[name]) for name in names]
    if len(set(shapes)) > 1:
        raise BuildError(f"{describe(call.node)}: the shapes {shapes} differ; broadcasting is not supported so far")


def _hardtanh(call: _Arguments) -> Operation:
    limits = (float(call["min_val"]), float(call["max_val"]))
    if limits != (0.0, 6.0):
        raise BuildError(f"{describe(call.node)}: only the limits 0 and 6 (ReLU6) are supported, not {limits}")
    return call.operation("relu6", "self")


def _mean(call: _Arguments) -> Operation:
    shape = shape_of(call["self"])
    axes = sorted(axis % len(shape) for axis in call["dim"] or range(len(shape)))
    if axes != [2, 3] or len(shape) != 4:
        raise BuildError(f"{describe(call.node)}: only the mean over height and width is supported, not over {axes}")
    return call.operation("global_average_pool", "self", attributes={"keepdim": bool(call["keepdim"])})


def _adaptive_average_pool(call: _Arguments) -> Operation:
    if _pair(call["output_size"]) != (1, 1):
        raise BuildError(f"{describe(call.node)}: only output size 1 is supported, not {call['output_size']}")
    return call.operation("global_average_pool", "self", attributes={"keepdim": True})


def _reshape(call: _Arguments) -> Operation:
    operation = call.operation("reshape", "self" if "self" in call._values else "input")
    return replace(operation, attributes={"shape": operation.shape[1:]})


def _named(kind: str, *inputs: str) -> Rule:
    return lambda call: call.operation(kind, *inputs)


_IDENTITIES = ("dropout", "feature_dropout", "alpha_dropout")
RULES: dict[str, Rule] = {
    "aten.conv2d.default": _convolution,
    "aten.conv2d.padding": _convolution,
    "aten.linear.default": _linear,
    "aten.batch_norm.default": _batch_norm,
    "aten.add.Tensor": _add,
    "aten.add_.Tensor": _add,
    "aten.relu.default": _named("relu", "self"),
    "aten.relu_.default": _named("relu", "self"),
    "aten.relu6.default": _named("relu6", "self"),
    "aten.relu6_.default": _named("relu6", "self"),
    "aten.hardtanh.default": _hardtanh,
    "aten.hardtanh_.default": _hardtanh,
    "aten.mean.dim": _mean,
    "aten.adaptive_avg_pool2d.default": _adaptive_average_pool,
    "aten.flatten.using_ints": _reshape,
    "aten.view.default": _reshape,
    "aten.reshape.default": _reshape,
    "aten.squeeze.dim": _reshape,
    "aten.squeeze.dims": _reshape,
    "aten.squeeze.default": _reshape,
    "aten.unsqueeze.default": _reshape,
    "aten.contiguous.default": _named("identity", "self"),
    "aten.clone.default": _named("identity", "self"),
    "aten.alias.default": _named("identity", "self"),
    "aten.detach_.default": _named("identity", "self"),
    **{f"aten.{name}.default": _named("identity", "input") for name in _IDENTITIES},
    **{f"aten.{name}_.default": _named("identity", "self") for name in _IDENTITIES},
}
"""ATen calls that are understood. Inference mode is traced, where dropout does nothing."""


def trace(model: nn.Module, example: Tensor) -> Trace:
    """The operations of `model` in inference mode for inputs shaped like `example` (N, ...), N free.

    Raises:
        BuildError: the module cannot be exported, or holds an operator without a rule; both are named.
    """
    program = _export(model, example)
    constants = _constants(program)
    operations: list[Operation] = []
    source, result = "", ""
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name not in constants:
            source = node.name
        elif node.op == "output":
            outputs = node.args[0]
            if len(outputs) != 1:
                raise BuildError(f"the model gives {len(outputs)} outputs; edgekd quantizes models with one")
            result = outputs[0].name
        elif node.op == "call_function" and _is_tensor(node):
            if node.all_input_nodes and all(read.name in constants for read in node.all_input_nodes):
                constants[node.name] = _evaluate(node, constants)
                continue
            rule = RULES.get(str(node.target))
            if rule is None:
                raise BuildError(f"no int8 form is known for {describe(node)}: replace it, or ask for its support")
            operations.append(rule(_Arguments(node, constants)))
    return Trace(tuple(operations), source, (1, *example.shape[1:]), result)


def _is_tensor(node: fx.Node) -> bool:
    """Whether a call yields tensors: size arithmetic and export's shape guards do not."""
    value = node.meta.get("val")
    return isinstance(value, (Tensor, list, tuple))


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
