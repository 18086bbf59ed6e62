"""From any torch module to a flat list of operations, through `torch.export`.

Signals (N, C, L) are images of height 1 here, (N, C, 1, L), because TFLite has no one-dimensional convolution.
"""

from __future__ import annotations

import copy
import io
import logging
import operator
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from edgekd.core.user_code import own_lines
from edgekd.errors import BuildError
from edgekd.nn.quantized.attention import batch_first_attention
from edgekd.nn.quantized.calls import Call, describe
from edgekd.nn.quantized.operations import Operation, Trace
from edgekd.nn.quantized.views import View, stored_shape


def trace(model: nn.Module, example: Tensor) -> Trace:
    """The operations of `model` in inference mode for inputs shaped like `example` (N, ...), N free.

    Raises:
        BuildError: the module cannot be exported, or holds an operator without a rule; both are named.
    """
    _refuse_recurrence(model)
    program = _export(model, example)
    constants = _constants(program)
    operations: list[Operation] = []
    views: dict[str, View] = {}
    source, result, rank = "", "", 0
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name not in constants:
            source = node.name
        elif node.op == "output":
            outputs = node.args[0]
            if len(outputs) != 1:
                raise BuildError(f"the model gives {len(outputs)} outputs; edgekd quantizes models with one")
            result, rank = outputs[0].name, outputs[0].meta["val"].dim()
            if views.get(result, "first") != "first":
                raise BuildError(f"{describe(outputs[0])}: an output with its channels last is not supported")
        elif node.op == "call_function":
            operations += _operations_of(node, constants, views)
    shape = stored_shape((1, *example.shape[1:]), "first")
    return Trace(tuple(operations), source, shape, result, example.dim(), rank)


def _refuse_recurrence(model: nn.Module) -> None:
    for place, module in model.named_modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            raise BuildError(
                f"the recurrent layer at {place or 'the model itself'} ({type(module).__name__}) has no form in the "
                "files, in int8 or float: use convolutions over time (a TCN)"
            )


def _operations_of(node: fx.Node, constants: dict[str, Tensor], views: dict[str, View]) -> list[Operation]:
    """The operations of one call; none where it is a constant, size arithmetic, or a list that is picked from."""
    from edgekd.nn.quantized.rules import LIST_RULES, RULES

    value = node.meta.get("val")
    if isinstance(value, (Tensor, list, tuple)) and all(read.name in constants for read in node.all_input_nodes):
        constants[node.name] = _evaluate(node, constants)
        return []
    if node.target is operator.getitem:
        source, index = node.args
        call = Call(source, constants, views)  # type: ignore[arg-type]
        picked = LIST_RULES[str(source.target)](call, node, int(index))  # type: ignore[union-attr, arg-type]
        views[node.name] = call.result
        return [*call.before, picked]
    if isinstance(value, (list, tuple)) and str(node.target) in LIST_RULES:
        return []
    if not isinstance(value, (Tensor, list, tuple)):
        return []
    if str(node.target) not in RULES:
        raise BuildError(f"no form is known for {describe(node)}, in int8 or float: replace it, or ask for its support")
    call = Call(node, constants, views)
    made = RULES[str(node.target)](call)
    views[node.name] = call.result
    return [*call.before, made]


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
    module = batch_first_attention(copy.deepcopy(model).cpu().eval())
    inputs = example[:1].detach().cpu().expand(2, *example.shape[1:]).contiguous()
    free = ({0: torch.export.Dim.DYNAMIC},)
    try:
        with torch.no_grad(), _no_fast_path(), _quiet():
            return torch.export.export(module, (inputs,), dynamic_shapes=free, strict=False)
    except _EXPORT_ERRORS as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, GuardOnDataDependentSymNode):
            reason = "what it does depends on values that it computes, and a file has no branches"
        shape = ", ".join(map(str, example.shape[1:]))
        said = f"{type(model).__name__} cannot be traced for inputs (N, {shape}), N free: {reason}"
        raise BuildError("\n".join([said, *own_lines(error)])) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it torch does not print the graph as far as it came, nor warn: what it raises is said in one message."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Within it torch's encoder layers are made of their parts, not of one fused kernel."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _constants(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    signature = program.graph_signature
    values: dict[str, Any] = {}
    for name, path in {**signature.inputs_to_parameters, **signature.inputs_to_buffers}.items():
        values[name] = program.state_dict[path] if path in program.state_dict else program.constants[path]
    for name, path in signature.inputs_to_lifted_tensor_constants.items():
        values[name] = program.constants[path]
    return values
