"""Rewrites of a trace into what a runtime executes: batch norms folded, activations fused, no-ops dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from edgekd.nn.quantized.trace import Operation, Trace

_FUSES_ACTIVATION = {"conv", "linear", "add"}


def simplify(trace: Trace) -> Trace:
    """The trace with every rewrite applied, in the order in which one enables the next."""
    for rewrite in (_drop_identities, _fold_batch_norms, _fuse_activations, _fuse_pool_and_flatten):
        trace = rewrite(trace)
    return trace


def _drop_identities(trace: Trace) -> Trace:
    shapes = {operation.name: operation.shape for operation in trace.operations} | {trace.input: trace.input_shape}

    def is_identity(operation: Operation) -> bool:
        return operation.kind == "identity" or (
            operation.kind == "reshape" and operation.shape == shapes[operation.inputs[0]]
        )

    return _without(trace, is_identity)


def _without(trace: Trace, dropped: Callable[[Operation], bool]) -> Trace:
    """The trace without the operations of which `dropped` is true; their readers read their input instead."""
    renamed: dict[str, str] = {}
    kept: list[Operation] = []
    for operation in trace.operations:
        operation = replace(operation, inputs=tuple(renamed.get(name, name) for name in operation.inputs))
        if dropped(operation):
            renamed[operation.name] = operation.inputs[0]
        else:
            kept.append(operation)
    return replace(trace, operations=tuple(kept), output=renamed.get(trace.output, trace.output))


def _merge(trace: Trace, follower: Callable[[Operation, Operation], Operation | None]) -> Trace:
    """Merge an operation into its producer where `follower(producer, operation)` gives their merger.

    Only where the operation is the producer's one reader: otherwise the unmerged value is needed too.
    """
    readers = trace.users()
    by_name = {operation.name: operation for operation in trace.operations}
    renamed: dict[str, str] = {}
    for operation in trace.operations:
        source = renamed.get(operation.inputs[0], operation.inputs[0])
        producer = by_name.get(source)
        alone = len(readers[operation.inputs[0]]) == 1 and operation.inputs[0] != trace.output
        merged = follower(producer, operation) if producer is not None and alone else None
        if merged is None:
            continue
        by_name[source] = merged
        renamed[operation.name] = source
    kept = tuple(
        replace(by_name[operation.name], inputs=tuple(renamed.get(name, name) for name in operation.inputs))
        for operation in trace.operations
        if operation.name not in renamed
    )
    return replace(trace, operations=kept, output=renamed.get(trace.output, trace.output))


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
    return replace(
        folded,
        operations=tuple(
            _as_depthwise(operation) if operation.kind == "batch_norm" else operation for operation in folded.operations
        ),
    )


def _batch_norm_as_affine(operation: Operation) -> tuple[Tensor, Tensor]:
    """Factor and shift per channel, (C,): x * factor + shift is the batch norm with its running statistics."""
    values = {name: tensor.detach() for name, tensor in operation.parameters.items()}
    mean, variance = values["running_mean"], values["running_var"]
    factor = values.get("weight", torch.ones_like(mean)) / torch.sqrt(variance + operation.attributes["eps"])
    return factor, values.get("bias", torch.zeros_like(mean)) - mean * factor


def _as_depthwise(operation: Operation) -> Operation:
    """A batch norm with no convolution to fold into (pre-activation networks), as a 1x1 depthwise convolution."""
    factor, shift = _batch_norm_as_affine(operation)
    return replace(
        operation,
        kind="conv",
        parameters={"weight": factor.reshape(-1, 1, 1, 1), "bias": shift},
        attributes={"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": len(factor)},
    )


def _fuse_activations(trace: Trace) -> Trace:
    def fuse(producer: Operation, operation: Operation) -> Operation | None:
        if producer.kind not in _FUSES_ACTIVATION or producer.activation != "none":
            return None
        if operation.kind == "relu":
            return replace(producer, activation="relu")
        return replace(producer, activation="relu6") if operation.kind == "relu6" else None

    return _merge(trace, fuse)


def _fuse_pool_and_flatten(trace: Trace) -> Trace:
    """A global pool and the flatten behind it are one operator in every runtime."""

    def fuse(producer: Operation, operation: Operation) -> Operation | None:
        if producer.kind != "global_average_pool" or operation.kind != "reshape" or len(operation.shape) != 2:
            return None
        return replace(producer, shape=operation.shape, attributes={"keepdim": False})

    return _merge(trace, fuse)
