"""Collects the tensors, buffers and operators of a TFLite flatbuffer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from edgekd.convert.extras import fit_module
from edgekd.convert.graph import METADATA_NAME, claims
from edgekd.nn.quantized.network import Array, Grid, Layer, Network

INPUT_NAME, OUTPUT_NAME = "input", "logits"
_SCHEMA = "ai_edge_litert.schema_py_generated"
_ALIGNMENT = 16


class TfliteBuilder:
    """Collects tensors, buffers and operators while emitters write the layers."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.schema = fit_module(_SCHEMA)
        self.buffers: list[Any] = [self.schema.BufferT()]
        self._held: dict[bytes, int] = {}
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[tuple[int, int], int] = {}
        self.index: dict[str, int] = {}
        self.flattened: dict[str, tuple[int, ...]] = {}
        """Tensors that stand for a flattened (C, H, W) without a reshape, by torch's shape before flattening."""

    def read_input(self) -> None:
        """Declare the network's input."""
        self.index[self.network.input] = self._activation(self.network.input)

    def _activation(self, name: str, shape: tuple[int, ...] | None = None) -> int:
        tensor = self.network.tensors[name]
        label = {self.network.input: INPUT_NAME, self.network.output: OUTPUT_NAME}.get(name, name)
        index = self.tensor(label, shape or channels_last(tensor.shape), tensor.grid)
        if tensor.integer:
            self.tensors[index].type = self.schema.TensorType.INT32
        return index

    def output(self, layer: Layer) -> int:
        """Declare the layer's output."""
        self.index[layer.output] = self._activation(layer.output)
        return self.index[layer.output]

    def tensor(self, name: str, shape: tuple[int, ...], grid: Grid | None, data: Array | None = None) -> int:
        """Declare a tensor per-tensor quantized on `grid`, or float32; returns its index."""
        schema = self.schema
        entry = schema.TensorT()
        entry.name, entry.shape, entry.hasRank = name, [int(size) for size in shape], True
        integer = schema.TensorType.INT16 if grid and grid.bits == 16 else schema.TensorType.INT8
        entry.type = integer if grid else schema.TensorType.FLOAT32
        if grid:
            entry.quantization = self._quantization(np.array([grid.scale]), np.array([grid.zero_point]), 0)
        if data is not None:
            entry.type = getattr(schema.TensorType, str(data.dtype).upper())
            entry.buffer = self._buffer(data)
        self.tensors.append(entry)
        return len(self.tensors) - 1

    def _buffer(self, data: Array) -> int:
        """Index of the buffer with these bytes: one for all tensors that hold them, such as tied weights."""
        content = np.ascontiguousarray(data).tobytes()
        if content not in self._held:
            self._held[content] = len(self.buffers)
            self.buffers.append(_aligned_buffer(self.schema, data))
        return self._held[content]

    def temporary(self, layer: Layer) -> int:
        """Declare a tensor like the layer's output, for an operator before its last one."""
        tensor = self.network.tensors[layer.output]
        return self.tensor(f"{layer.name}/raw", channels_last(tensor.shape), tensor.grid)

    def constant(
        self, name: str, data: Array, scale: Array | None = None, axis: int = 0, grid: Grid | None = None
    ) -> int:
        """Declare a constant: per tensor on `grid`, symmetric per channel of `axis` with `scale`, or neither."""
        index = self.tensor(name, data.shape, grid, data)
        if scale is not None:
            zero_points = np.zeros(len(scale), np.int64)
            self.tensors[index].quantization = self._quantization(scale, zero_points, axis)
        return index

    def _quantization(self, scale: Array, zero_point: Array, axis: int) -> Any:
        parameters = self.schema.QuantizationParametersT()
        parameters.scale = scale.astype(np.float32)
        parameters.zeroPoint = zero_point.astype(np.int64)
        parameters.quantizedDimension = axis
        return parameters

    def operator(self, code: str, versions: tuple[int, int], inputs: list[int], output: int, options: Any) -> None:
        """Append an operator. `versions`: of its float form and of its int8 form."""
        schema = self.schema
        integer = self.tensors[inputs[0]].type in (schema.TensorType.INT8, schema.TensorType.INT16)
        key = (getattr(schema.BuiltinOperator, code), versions[integer])
        entry = schema.OperatorT()
        entry.opcodeIndex = self.codes.setdefault(key, len(self.codes))
        entry.inputs, entry.outputs = inputs, [output]
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            entry.builtinOptionsType, entry.builtinOptions = getattr(schema.BuiltinOptions, name), options
        self.operators.append(entry)

    def fused(self, layer: Layer) -> int:
        """The code of the layer's fused activation."""
        kinds = self.schema.ActivationFunctionType
        # There is no code for relu1: where it is quantized, saturation is it.
        codes = {"none": kinds.NONE, "relu": kinds.RELU, "relu6": kinds.RELU6, "relu1": kinds.NONE}
        return int(codes[layer.activation])

    def reshape(self, source: int, output: int, shape: tuple[int, ...], name: str) -> None:
        """Append a reshape from one declared tensor to another of `shape`."""
        options = self.schema.ReshapeOptionsT()
        options.newShape = list(shape)
        amounts = self.constant(name, np.array(shape, np.int32))
        self.operator("RESHAPE", (1, 1), [source, amounts], output, options)

    def weight(self, layer: Layer, data: Array, axis: int = 0) -> int:
        """Declare the layer's weight, laid out as `data`; `axis` is its output channel's."""
        return self._stored(f"{layer.name}/weight", data, layer.weight_scale, axis)

    def _stored(self, name: str, data: Array, scale: Array | None, axis: int) -> int:
        """A constant that operators read: float16 ones through a dequantize, which runtimes do once, at load."""
        index = self.constant(name, data, scale, axis)
        if data.dtype != np.float16:
            return index
        wide = self.tensor(f"{name}/float32", data.shape, None)
        self.operator("DEQUANTIZE", (3, 3), [index], wide, self.schema.DequantizeOptionsT())
        return wide

    def bias(self, layer: Layer, source: str) -> int:
        """Declare the bias, an integer on the grid of input scale times weight scale where quantized."""
        assert layer.bias is not None
        grid = self.network.tensors[source].grid
        scale = layer.weight_scale * np.float32(grid.scale) if grid and layer.weight_scale is not None else None
        return self._stored(f"{layer.name}/bias", layer.bias, scale, 0)

    def pack(self) -> bytes:
        """The file's bytes, once every layer is emitted."""
        schema, network = self.schema, self.network
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = self.tensors, self.operators, "main"
        graph.inputs, graph.outputs = [self.index[network.input]], [self.index[network.output]]
        model = schema.ModelT()
        model.version, model.description = 3, f"edgekd {network.scheme}"
        model.subgraphs, model.signatureDefs = [graph], [self._signature(graph)]
        metadata = schema.MetadataT()
        metadata.name, metadata.buffer = METADATA_NAME, len(self.buffers)
        claim = json.dumps(claims(network)).encode()
        self.buffers.append(_aligned_buffer(schema, np.frombuffer(claim, np.uint8)))
        model.metadata, model.buffers = [metadata], self.buffers
        model.operatorCodes = [self._code(*key) for key in self.codes]
        builder = fit_module("flatbuffers").Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _signature(self, graph: Any) -> Any:
        signature = self.schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        for field, name, (index,) in (("inputs", INPUT_NAME, graph.inputs), ("outputs", OUTPUT_NAME, graph.outputs)):
            entry = self.schema.TensorMapT()
            entry.name, entry.tensorIndex = name, index
            setattr(signature, field, [entry])
        return signature

    def _code(self, code: int, version: int) -> Any:
        entry = self.schema.OperatorCodeT()
        entry.builtinCode, entry.version = code, version
        # Readers older than the 127th operator look at the narrow field only.
        entry.deprecatedBuiltinCode = min(code, 127)
        return entry


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """TFLite's shape for torch's: (N, C, H, W) becomes (N, H, W, C), others stay."""
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


def _aligned_buffer(schema: Any, data: Array) -> Any:
    """A buffer whose bytes start at a multiple of 16, as the schema demands and its Python writer ignores."""

    class AlignedBuffer(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> Any:  # noqa: N802 - the schema's name
            content = np.ascontiguousarray(data).tobytes()
            builder.StartVector(1, len(content), _ALIGNMENT)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            vector = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, vector)
            return schema.BufferEnd(builder)

    return AlignedBuffer()
