"""Writes a network as a TFLite flatbuffer, operator by operator: NHWC, static shapes, one signature.

Every grid of the network becomes the tensor's quantization as it is, so that the file computes what the
fake-quantized model does. Operator semantics: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgekd.convert.extras import fit_module
from edgekd.errors import BuildError
from edgekd.nn.quantized.network import Array, Grid, Layer, Network

METADATA_NAME = "edgekd"
INPUT_NAME, OUTPUT_NAME = "input", "logits"
_SCHEMA = "ai_edge_litert.schema_py_generated"
_ALIGNMENT = 16


def tflite_bytes(network: Network) -> bytes:
    """The file's bytes. Input `input` (1, H, W, C) and output `logits`, int8 where the network is, else float32.

    Raises:
        BuildError: a layer has no TFLite form.
        MissingExtraError: the flatbuffer schema is not installed.
    """
    return _Writer(network).finish()


class _Writer:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.schema = fit_module(_SCHEMA)
        self.buffers: list[Any] = [self.schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[tuple[int, int], int] = {}
        self.index: dict[str, int] = {}
        self.flattened: dict[str, tuple[int, ...]] = {}
        """Tensors that stand for a flattened (C, H, W) without a reshape, by torch's shape before flattening."""
        self.quantized = network.scheme != "fp32"

    def finish(self) -> bytes:
        network = self.network
        self.index[network.input] = self._activation(network.input)
        for layer in network.layers:
            emitter = _EMITTERS.get(layer.kind)
            if emitter is None:
                raise BuildError(f"{layer.name}: '{layer.kind}' has no TFLite form")
            emitter(self, layer)
        if network.output in self.flattened:
            raise BuildError(f"{network.layers[-1].name}: the output is a flattened image, whose order TFLite changes")
        return self._pack()

    def _activation(self, name: str, shape: tuple[int, ...] | None = None) -> int:
        tensor = self.network.tensors[name]
        label = {self.network.input: INPUT_NAME, self.network.output: OUTPUT_NAME}.get(name, name)
        return self.tensor(label, shape or channels_last(tensor.shape), tensor.grid)

    def output(self, layer: Layer) -> int:
        """Declare the layer's output."""
        self.index[layer.output] = self._activation(layer.output)
        return self.index[layer.output]

    def tensor(self, name: str, shape: tuple[int, ...], grid: Grid | None, data: Array | None = None) -> int:
        """Declare a tensor per-tensor quantized on `grid`, or float32; returns its index."""
        schema = self.schema
        entry = schema.TensorT()
        entry.name, entry.shape, entry.hasRank = name, [int(size) for size in shape], True
        entry.type = schema.TensorType.INT8 if grid else schema.TensorType.FLOAT32
        if grid:
            entry.quantization = self._quantization(np.array([grid.scale]), np.array([grid.zero_point]), 0)
        if data is not None:
            entry.type = getattr(schema.TensorType, str(data.dtype).upper())
            entry.buffer = len(self.buffers)
            self.buffers.append(_aligned_buffer(schema, data))
        self.tensors.append(entry)
        return len(self.tensors) - 1

    def constant(self, name: str, data: Array, scale: Array | None = None, axis: int = 0) -> int:
        """Declare a constant, symmetric per channel of `axis` where `scale` is given; returns its index."""
        index = self.tensor(name, data.shape, None, data)
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
        key = (getattr(schema.BuiltinOperator, code), versions[self.quantized])
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
        return int({"none": kinds.NONE, "relu": kinds.RELU, "relu6": kinds.RELU6}[layer.activation])

    def bias(self, layer: Layer, source: str) -> int:
        """Declare the bias, int32 on the grid of input scale times weight scale where quantized."""
        assert layer.bias is not None
        grid = self.network.tensors[source].grid
        scale = layer.weight_scale * np.float32(grid.scale) if grid and layer.weight_scale is not None else None
        return self.constant(f"{layer.name}/bias", layer.bias, scale)

    def _pack(self) -> bytes:
        schema, network = self.schema, self.network
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = self.tensors, self.operators, "main"
        graph.inputs, graph.outputs = [self.index[network.input]], [self.index[network.output]]
        model = schema.ModelT()
        model.version, model.description = 3, f"edgekd {network.scheme}"
        model.subgraphs, model.signatureDefs = [graph], [self._signature(graph)]
        metadata = schema.MetadataT()
        metadata.name, metadata.buffer = METADATA_NAME, len(self.buffers)
        claim = json.dumps({"scheme": network.scheme}).encode()
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


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What TFLite's SAME pads along one axis: (before, after)."""
    outputs = math.ceil(size / stride)
    total = max((outputs - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def _padded(writer: _Writer, layer: Layer, kernel: tuple[int, int]) -> tuple[int, int]:
    """Index of the window's input and the padding's code; an explicit PAD where neither SAME nor VALID fits."""
    (source,) = layer.inputs
    tensor, padding = writer.network.tensors[source], layer.attributes["padding"]
    same: list[int] = []
    for axis in (0, 1):
        stride, dilation = layer.attributes["stride"][axis], layer.attributes["dilation"][axis]
        same += _same_padding(tensor.shape[2 + axis], kernel[axis], stride, dilation)
    if not any(padding):
        return writer.index[source], writer.schema.Padding.VALID
    if tuple(padding) == tuple(same):
        return writer.index[source], writer.schema.Padding.SAME
    top, bottom, left, right = padding
    _, channels, height, width = tensor.shape
    amounts = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    padded = writer.tensor(
        f"{layer.name}/padded", (1, height + top + bottom, width + left + right, channels), tensor.grid
    )
    inputs = [writer.index[source], writer.constant(f"{layer.name}/padding", amounts)]
    writer.operator("PAD", (1, 2), inputs, padded, writer.schema.PadOptionsT())
    return padded, writer.schema.Padding.VALID


def _conv(writer: _Writer, layer: Layer) -> None:
    weight = layer.weight
    assert weight is not None
    source, padding = _padded(writer, layer, weight.shape[2:])
    channels, groups = writer.network.tensors[layer.inputs[0]].shape[1], layer.attributes["groups"]
    depthwise = groups == channels and groups > 1
    options = writer.schema.DepthwiseConv2DOptionsT() if depthwise else writer.schema.Conv2DOptionsT()
    options.padding, options.fusedActivationFunction = padding, writer.fused(layer)
    options.strideH, options.strideW = layer.attributes["stride"]
    options.dilationHFactor, options.dilationWFactor = layer.attributes["dilation"]
    name = f"{layer.name}/weight"
    if depthwise:
        options.depthMultiplier = len(weight) // channels
        stored = writer.constant(name, weight.transpose(1, 2, 3, 0), layer.weight_scale, axis=3)
    else:
        stored = writer.constant(name, weight.transpose(0, 2, 3, 1), layer.weight_scale)
    code, versions = ("DEPTHWISE_CONV_2D", (2, 3)) if depthwise else ("CONV_2D", (1 if groups == 1 else 6, 3))
    inputs = [source, stored, writer.bias(layer, layer.inputs[0])]
    writer.operator(code, versions, inputs, writer.output(layer), options)


def _linear(writer: _Writer, layer: Layer) -> None:
    (source,) = layer.inputs
    weight = layer.weight
    assert weight is not None
    if source in writer.flattened:
        channels, height, width = writer.flattened[source]
        weight = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    options = writer.schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = writer.fused(layer)
    stored = writer.constant(f"{layer.name}/weight", weight, layer.weight_scale)
    inputs = [writer.index[source], stored, writer.bias(layer, source)]
    # Version 12 is the first whose int8 kernels take one weight scale per output.
    writer.operator("FULLY_CONNECTED", (1, 12), inputs, writer.output(layer), options)


def _add(writer: _Writer, layer: Layer) -> None:
    options = writer.schema.AddOptionsT()
    options.fusedActivationFunction = writer.fused(layer)
    writer.operator("ADD", (1, 2), [writer.index[name] for name in layer.inputs], writer.output(layer), options)


def _global_average_pool(writer: _Writer, layer: Layer) -> None:
    options = writer.schema.ReducerOptionsT()
    options.keepDims = layer.attributes["keepdim"]
    axes = writer.constant(f"{layer.name}/axes", np.array([1, 2], np.int32))
    writer.operator("MEAN", (1, 2), [writer.index[layer.inputs[0]], axes], writer.output(layer), options)


def _reshape(writer: _Writer, layer: Layer) -> None:
    (source,) = layer.inputs
    shape = writer.network.tensors[source].shape
    readers = {reader.kind for reader in writer.network.layers if layer.output in reader.inputs}
    if readers == {"linear"} and len(shape) == 4 and len(layer.attributes["shape"]) == 1:
        # A fully connected layer flattens its input itself; its columns follow TFLite's order of the elements.
        writer.index[layer.output] = writer.index[source]
        writer.flattened[layer.output] = shape[1:]
        return
    target = channels_last((1, *layer.attributes["shape"]))
    if _moved_order(shape) or _moved_order((1, *layer.attributes["shape"])):
        raise BuildError(
            f"{layer.name}: TFLite keeps channels last, so reshaping {shape} to {target} reorders elements"
        )
    options = writer.schema.ReshapeOptionsT()
    options.newShape = list(target)
    amounts = writer.constant(f"{layer.name}/shape", np.array(target, np.int32))
    writer.operator("RESHAPE", (1, 1), [writer.index[source], amounts], writer.output(layer), options)


def _moved_order(shape: tuple[int, ...]) -> bool:
    """Whether channels last orders the elements of this shape differently than torch does."""
    return len(shape) == 4 and shape[1] > 1 and shape[2] * shape[3] > 1


_EMITTERS: dict[str, Callable[[_Writer, Layer], None]] = {
    "conv": _conv,
    "linear": _linear,
    "add": _add,
    "global_average_pool": _global_average_pool,
    "reshape": _reshape,
}
