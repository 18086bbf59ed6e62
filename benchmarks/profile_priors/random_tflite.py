"""Writes a student with random weights as .tflite directly, in milliseconds: latency does not depend on weights.

int8 per channel (`wi8_ai8`) or fp32. The graph is what a converted student has: convolutions with fused activations,
additions, a mean over the image, a dense layer; no reshapes, no float islands.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekd.core.architecture import Architecture, Convolution

ACTIVATION_SCALE = 0.05


class _Graph:
    def __init__(self, scheme: str, seed: int) -> None:
        self.int8 = scheme == "wi8_ai8"
        self.random = np.random.default_rng(seed)
        self.buffers: list[Any] = [schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[Any] = []

    def tensor(self, shape: tuple[int, ...], kind: int, scales: Any = None, data: Any = None, axis: int = 0) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.name = list(shape), kind, f"t{len(self.tensors)}"
        if scales is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.asarray(scales, np.float32)
            tensor.quantization.zeroPoint = np.zeros(len(tensor.quantization.scale), np.int64)
            tensor.quantization.quantizedDimension = axis
        tensor.buffer = 0
        if data is not None:
            tensor.buffer = len(self.buffers)
            self.buffers.append(schema.BufferT())
            self.buffers[-1].data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def activation(self, shape: tuple[int, ...]) -> int:
        if self.int8:
            return self.tensor(shape, schema.TensorType.INT8, [ACTIVATION_SCALE])
        return self.tensor(shape, schema.TensorType.FLOAT32)

    def weights(self, shape: tuple[int, ...], outputs: int, axis: int, per_channel: bool) -> tuple[int, int]:
        count = outputs if per_channel else 1
        scales = np.full(count, 0.01, np.float32)
        if not self.int8:
            data = self.random.normal(0, 0.1, shape).astype(np.float32)
            bias = np.zeros(outputs, np.float32)
            kinds = schema.TensorType.FLOAT32, schema.TensorType.FLOAT32
            return self.tensor(shape, kinds[0], None, data), self.tensor((outputs,), kinds[1], None, bias)
        data = self.random.integers(-127, 128, shape).astype(np.int8)
        bias = np.zeros(outputs, np.int32)
        return (
            self.tensor(shape, schema.TensorType.INT8, scales, data, axis),
            self.tensor((outputs,), schema.TensorType.INT32, scales * ACTIVATION_SCALE, bias),
        )

    def operator(self, name: str, inputs: list[int], output: int, options: Any, options_type: int, version: int) -> int:
        builtin = getattr(schema.BuiltinOperator, name)
        known = [code.builtinCode for code in self.codes]
        if builtin not in known:
            code = schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
            self.codes.append(code)
            known.append(builtin)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = known.index(builtin), inputs, [output]
        operator.builtinOptions, operator.builtinOptionsType = options, options_type
        self.operators.append(operator)
        return output


def _convolution(graph: _Graph, convolution: Convolution, source: int, height: int, width: int) -> int:
    out = convolution.out_channels
    depthwise = convolution.groups > 1
    options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
    options.padding = schema.Padding.SAME
    options.strideH, options.strideW = convolution.stride
    options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = {
        "relu": schema.ActivationFunctionType.RELU,
        "relu6": schema.ActivationFunctionType.RELU6,
        "none": schema.ActivationFunctionType.NONE,
    }[convolution.activation]
    if depthwise:
        options.depthMultiplier = 1
    shape = (1, *convolution.kernel, out) if depthwise else (out, *convolution.kernel, convolution.in_channels)
    weights, biases = graph.weights(shape, out, 3 if depthwise else 0, per_channel=True)
    name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    kind = schema.BuiltinOptions.DepthwiseConv2DOptions if depthwise else schema.BuiltinOptions.Conv2DOptions
    return graph.operator(
        name, [source, weights, biases], graph.activation((1, height, width, out)), options, kind, version=3
    )


def tflite_bytes(architecture: Architecture, scheme: str = "wi8_ai8", seed: int = 0) -> bytes:
    """The student as a .tflite file with random weights. `scheme`: `wi8_ai8` or `fp32`."""
    graph = _Graph(scheme, seed)
    channels, height, width = architecture.input_shape
    entry = current = graph.activation((1, height, width, channels))
    for block in architecture.blocks:
        before = current
        for convolution in block.convolutions:
            height, width = convolution.output_size(height, width)
            current = _convolution(graph, convolution, current, height, width)
        if block.residual:
            shape = (1, height, width, block.convolutions[-1].out_channels)
            options, kind = schema.AddOptionsT(), schema.BuiltinOptions.AddOptions
            current = graph.operator("ADD", [before, current], graph.activation(shape), options, kind, version=2)
    axes = graph.tensor((2,), schema.TensorType.INT32, None, np.array([1, 2], np.int32))
    pooled = graph.activation((1, architecture.features))
    options, kind = schema.ReducerOptionsT(), schema.BuiltinOptions.ReducerOptions
    options.keepDims = False
    current = graph.operator("MEAN", [current, axes], pooled, options, kind, version=2)
    weights, biases = graph.weights((architecture.outputs, architecture.features), architecture.outputs, 0, False)
    if graph.int8:
        graph.tensors[biases].quantization.scale = np.array([0.01 * ACTIVATION_SCALE], np.float32)
        graph.tensors[biases].quantization.zeroPoint = np.zeros(1, np.int64)
    logits = graph.activation((1, architecture.outputs))
    options, kind = schema.FullyConnectedOptionsT(), schema.BuiltinOptions.FullyConnectedOptions
    graph.operator("FULLY_CONNECTED", [current, weights, biases], logits, options, kind, version=4)
    return _packed(graph, entry, logits)


def _packed(graph: _Graph, entry: int, logits: int) -> bytes:
    subgraph = schema.SubGraphT()
    subgraph.tensors, subgraph.operators = graph.tensors, graph.operators
    subgraph.inputs, subgraph.outputs, subgraph.name = [entry], [logits], "main"
    model = schema.ModelT()
    model.version, model.operatorCodes, model.buffers = 3, graph.codes, graph.buffers
    model.subgraphs, model.description = [subgraph], "random weights"
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
