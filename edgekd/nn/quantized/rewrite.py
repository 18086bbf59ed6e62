"""Rewrites of a trace into what a runtime executes: batch norms folded, activations fused, no-ops dropped.

Where no integer kernel exists in both runtimes, an operator is written with those that do, so that both compute
the same: hard-sigmoid and a lone ReLU are depthwise 1x1 convolutions whose output saturates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from edgekd.nn.quantized.composites import expand_composites, fuse_attention
from edgekd.nn.quantized.network import Activation
from edgekd.nn.quantized.operations import Operation, Trace

_FUSES_ACTIVATION = {"conv", "linear", "add"}
_CLIPS: dict[str, Activation] = {"relu": "relu", "relu6": "relu6", "relu1": "relu1"}
Rewrite = Callable[[Trace], Trace]


def simplify(trace: Trace, quantized: bool = True) -> Trace:
    """The trace with every rewrite applied, in the order in which one enables the next."""
    rewrites: list[Rewrite] = [_drop_identities, fuse_attention, expand_composites, _fold_padding]
    rewrites += [_fold_batch_norms, _fuse_channel_shuffles]
    rewrites += [_expand_gates(quantized), _fuse_activations, _lone_activations, _fuse_pool_and_flatten]
    for rewrite in rewrites:
        trace = rewrite(trace)
    return trace


def _shapes(trace: Trace) -> dict[str, tuple[int, ...]]:
    return {operation.name: operation.shape for operation in trace.operations} | {trace.input: trace.input_shape}


def _drop_identities(trace: Trace) -> Trace:
    shapes = _shapes(trace)

    def is_identity(operation: Operation) -> bool:
        return operation.kind == "identity" or (
            operation.kind == "reshape" and operation.shape == shapes[operation.inputs[0]]
        )

    renamed: dict[str, str] = {}
    kept: list[Operation] = []
    for operation in trace.operations:
        operation = replace(operation, inputs=tuple(renamed.get(name, name) for name in operation.inputs))
        if is_identity(operation):
            renamed[operation.name] = operation.inputs[0]
        else:
            kept.append(operation)
    return replace(trace, operations=tuple(kept), output=renamed.get(trace.output, trace.output))


def _merge(trace: Trace, merger: Callable[[Operation, Operation], Operation | None]) -> Trace:
    """Merge an operation into its producer where `merger(producer, operation)` gives their merger.

    Only where the operation is the producer's one reader: otherwise the unmerged value is needed too.
    """
    readers = trace.users()
    by_name = {operation.name: operation for operation in trace.operations}
    renamed: dict[str, str] = {}
    for operation in trace.operations:
        if not operation.inputs:
            continue
        source = renamed.get(operation.inputs[0], operation.inputs[0])
        producer = by_name.get(source)
        alone = len(readers[operation.inputs[0]]) == 1 and operation.inputs[0] != trace.output
        merged = merger(producer, operation) if producer is not None and alone else None
        if merged is None:
            continue
        by_name[source] = merged
        renamed[operation.name] = source
    kept = tuple(
        replace(
            by_name[operation.name], inputs=tuple(renamed.get(name, name) for name in by_name[operation.name].inputs)
        )
        for operation in trace.operations
        if operation.name not in renamed
    )
    return replace(trace, operations=kept, output=renamed.get(trace.output, trace.output))


def _fold_padding(trace: Trace) -> Trace:
    """Padding with zeros in front of convolutions becomes theirs."""
    pads = {operation.name: operation for operation in trace.operations if operation.kind == "pad"}

    def folded(operation: Operation) -> Operation:
        pad = pads.get(operation.inputs[0]) if operation.kind in ("conv", "average_pool") else None
        if pad is None:
            return operation
        sides = zip(pad.attributes["padding"], operation.attributes["padding"], strict=True)
        attributes = {**operation.attributes, "padding": tuple(outer + inner for outer, inner in sides)}
        return replace(operation, inputs=pad.inputs, attributes=attributes)

    rewritten = replace(trace, operations=tuple(folded(operation) for operation in trace.operations))
    read = rewritten.users()
    kept = tuple(
        operation for operation in rewritten.operations if operation.name not in pads or operation.name in read
    )
    return replace(rewritten, operations=kept)


def _fold_batch_norms(trace: Trace) -> Trace:
    def fold(producer: Operation, operation: Operation) -> Operation | None:
        if operation.kind != "batch_norm" or producer.kind not in ("conv", "linear"):
            return None
        factor, shift = _batch_norm_as_affine(operation)
        weight = producer.parameters["weight"].detach()
        bias = producer.parameters.get("bias", torch.zeros(len(weight), dtype=weight.dtype)).detach()
        folded = {
            "weight": weight * factor.reshape(-1, *[1] * (weight.dim() - 1)),
            "bias": bias * factor + shift,
        }
        return replace(producer, parameters=folded)

    folded = _merge(trace, fold)
    operations = tuple(
        _depthwise(operation, *_batch_norm_as_affine(operation)) if operation.kind == "batch_norm" else operation
        for operation in folded.operations
    )
    return replace(folded, operations=operations)


def _batch_norm_as_affine(operation: Operation) -> tuple[Tensor, Tensor]:
    """Factor and shift per channel, (C,): x * factor + shift is the batch norm with its running statistics."""
    values = {name: tensor.detach() for name, tensor in operation.parameters.items()}
    mean, variance = values["running_mean"], values["running_var"]
    factor = values.get("weight", torch.ones_like(mean)) / torch.sqrt(variance + operation.attributes["eps"])
    return factor, values.get("bias", torch.zeros_like(mean)) - mean * factor


def _depthwise(operation: Operation, factor: Tensor, shift: Tensor, activation: Activation = "none") -> Operation:
    """`operation` as a 1x1 depthwise convolution: x * factor + shift per channel (C,), then an activation."""
    if len(operation.shape) != 4:
        return operation
    return replace(
        operation,
        kind="conv",
        parameters={"weight": factor.reshape(-1, 1, 1, 1), "bias": shift},
        attributes={"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": len(factor)},
        activation=activation,
    )


def _expand_gates(quantized: bool) -> Rewrite:
    """Hard-swish and SiLU as a gate times the input; float runtimes have hard-swish as one operator."""
    gates = {"silu": "sigmoid"} | ({"hardswish": "hardsigmoid"} if quantized else {})

    def expand(trace: Trace) -> Trace:
        operations: list[Operation] = []
        for operation in trace.operations:
            if operation.kind not in gates:
                operations.append(operation)
                continue
            gate = replace(operation, name=f"{operation.name}_gate", kind=gates[operation.kind])
            operations += [gate, replace(operation, kind="mul", inputs=(*operation.inputs, gate.name))]
        return replace(trace, operations=tuple(operations))

    return expand


def _fuse_activations(trace: Trace) -> Trace:
    def fuse(producer: Operation, operation: Operation) -> Operation | None:
        fusible = producer.kind in _FUSES_ACTIVATION and producer.activation == "none" and operation.kind in _CLIPS
        return replace(producer, activation=_CLIPS[operation.kind]) if fusible else None

    return _merge(trace, fuse)


def _lone_activations(trace: Trace) -> Trace:
    """Activations with nothing to fuse with: depthwise convolutions by 1, or by 1/6 with shift 1/2, that saturate."""

    def rewritten(operation: Operation) -> Operation:
        channels = operation.shape[1]
        if operation.kind in _CLIPS:
            return _depthwise(operation, torch.ones(channels), torch.zeros(channels), _CLIPS[operation.kind])
        if operation.kind == "hardsigmoid":
            return _depthwise(operation, torch.full((channels,), 1 / 6), torch.full((channels,), 0.5), "relu1")
        return operation

    return replace(trace, operations=tuple(rewritten(operation) for operation in trace.operations))


def _fuse_channel_shuffles(trace: Trace) -> Trace:
    """Reshape to groups, transpose them, reshape back: one operator."""
    shapes = _shapes(trace)

    def start(producer: Operation, operation: Operation) -> Operation | None:
        grouped = producer.kind == "reshape" and len(producer.shape) == 5 and operation.kind == "transpose"
        if not grouped or operation.attributes["axes"] != (0, 2, 1, 3, 4):
            return None
        return replace(producer, kind="grouped", shape=operation.shape, attributes={"groups": producer.shape[1]})

    def end(producer: Operation, operation: Operation) -> Operation | None:
        if producer.kind != "grouped" or operation.kind != "reshape" or operation.shape != shapes[producer.inputs[0]]:
            return None
        return replace(producer, kind="channel_shuffle", shape=operation.shape)

    return _merge(_merge(trace, start), end)


def _fuse_pool_and_flatten(trace: Trace) -> Trace:
    """A global pool and the flatten behind it are one operator in every runtime."""

    def fuse(producer: Operation, operation: Operation) -> Operation | None:
        if producer.kind != "global_average_pool" or operation.kind != "reshape" or len(operation.shape) != 2:
            return None
        return replace(producer, shape=operation.shape, attributes={"keepdim": False})

    return _merge(trace, fuse)
