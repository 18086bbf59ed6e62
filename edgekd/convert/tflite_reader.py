"""Reads a .tflite flatbuffer into a graph: its first subgraph, the one that runs."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from edgekd.convert.extras import fit_module
from edgekd.convert.graph import Graph, GraphNode, GraphTensor
from edgekd.errors import BuildError

_IDENTIFIER = b"TFL3"


def read_tflite(content: bytes, origin: str) -> Graph:
    """The graph of a flatbuffer; `origin` names it in messages.

    Raises:
        BuildError: not a TFLite file, or damaged.
    """
    if content[4:8] != _IDENTIFIER:
        raise BuildError(f"{origin}: not a TFLite file (bytes 4 to 7 are {content[4:8]!r}, not {_IDENTIFIER!r})")
    schema = fit_module("ai_edge_litert.schema_py_generated")
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise BuildError(f"{origin}: damaged TFLite file ({type(error).__name__}: {error})") from error
    if not model.subgraphs or model.operatorCodes is None or model.subgraphs[0].operators is None:
        raise BuildError(f"{origin}: damaged TFLite file (no graph in it)")
    return _Reader(schema, model).graph()


class _Reader:
    def __init__(self, schema: Any, model: Any) -> None:
        self.model = model
        self.subgraph = model.subgraphs[0]
        self.types = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
        self.codes = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
        self.names = _unique_names([_text(tensor.name) for tensor in self.subgraph.tensors])

    def graph(self) -> Graph:
        tensors = {
            name: self._tensor(name, tensor) for name, tensor in zip(self.names, self.subgraph.tensors, strict=True)
        }
        nodes = tuple(self._node(index, operator) for index, operator in enumerate(self.subgraph.operators))
        metadata = {_text(entry.name): self._metadata(entry) for entry in self.model.metadata or []}
        return Graph(
            "tflite", tensors, nodes, self._named(self.subgraph.inputs), self._named(self.subgraph.outputs), metadata
        )

    def _named(self, indices: Any) -> tuple[str, ...]:
        return tuple(self.names[index] if index >= 0 else "" for index in (indices if indices is not None else []))

    def _metadata(self, entry: Any) -> str:
        data = self.model.buffers[entry.buffer].data
        return bytes(data).decode("utf-8", "replace") if data is not None else ""

    def _tensor(self, name: str, tensor: Any) -> GraphTensor:
        dtype = self.types.get(tensor.type, f"type {tensor.type}")
        shape = tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
        scales = zero_points = None
        axis = 0
        quantization = tensor.quantization
        if quantization is not None and quantization.scale is not None and len(quantization.scale):
            scales = np.asarray(quantization.scale, np.float32)
            stored = quantization.zeroPoint
            zero_points = np.asarray(stored if stored is not None else np.zeros(len(scales)), np.int64)
            axis = int(quantization.quantizedDimension)
        data = self._data(tensor, dtype, shape)
        return GraphTensor(name, shape, dtype, data, scales, zero_points, axis, None if data is None else tensor.buffer)

    def _data(self, tensor: Any, dtype: str, shape: tuple[int, ...]) -> Any:
        data = self.model.buffers[tensor.buffer].data if self.model.buffers else None
        if data is None or not len(data):
            return None
        raw = np.asarray(data, np.uint8)
        try:
            return raw.view(np.dtype(dtype)).reshape(shape)
        except (TypeError, ValueError):
            # Strings, packed 4-bit and sparse weights have no array form; their bytes still count.
            return raw

    def _node(self, index: int, operator: Any) -> GraphNode:
        code = self.model.operatorCodes[operator.opcodeIndex]
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        op = self.codes.get(builtin, f"BUILTIN_{builtin}")
        if op == "CUSTOM":
            op = f"CUSTOM:{_text(code.customCode)}"
        outputs = self._named(operator.outputs)
        attributes = dict(vars(operator.builtinOptions)) if operator.builtinOptions is not None else {}
        return GraphNode(
            outputs[0] if outputs else f"{op}_{index}", op, self._named(operator.inputs), outputs, attributes
        )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def _unique_names(names: list[str]) -> list[str]:
    """The names, with an index behind those that are empty or taken."""
    seen: set[str] = set()
    unique: list[str] = []
    for index, name in enumerate(names):
        label = name if name and name not in seen else f"{name}#{index}"
        seen.add(label)
        unique.append(label)
    return unique
