"""Reads an ONNX file into a graph. Quantization parameters stand on the values that quantize nodes make or take."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekd.convert.extras import fit_module
from edgekd.convert.graph import Graph, GraphNode, GraphTensor
from edgekd.errors import BuildError
from edgekd.nn.quantized.network import Array


def read_onnx(content: bytes, origin: str) -> Graph:
    """The graph of an ONNX model; `origin` names it in messages.

    Raises:
        BuildError: not an ONNX file, damaged, or not passing ONNX's shape inference.
    """
    onnx = fit_module("onnx")
    decode_error = fit_module("google.protobuf.message").DecodeError
    try:
        model = onnx.load_model_from_string(content)
        inferred = _inferred(onnx, model)
    except (decode_error, ValueError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(f"{origin}: damaged ONNX file or none ({error})") from error
    if not model.graph.node:
        raise BuildError(f"{origin}: damaged ONNX file or none (no graph in it)")
    return _Reader(onnx, inferred).graph()


_KEEPS_SHAPE = {"QLinearAdd", "QLinearMul", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax"}


def _inferred(onnx: Any, model: Any) -> Any:
    """The model with the shapes of its values. ONNX's inference stops at onnxruntime's own operators: step over."""
    sizes = {entry.name: tuple(entry.dims) for entry in model.graph.initializer}
    while True:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False)
        graph = inferred.graph
        known = {value.name: value for value in (*graph.input, *graph.output, *graph.value_info)}
        stuck = [
            node
            for node in graph.node
            if node.domain == "com.microsoft" and node.input[0] in known and node.output[0] not in known
        ]
        added = [value for node in stuck if (value := _value_of(onnx, node, known[node.input[0]], sizes)) is not None]
        if not added:
            return inferred
        model.graph.value_info.extend(added)


def _value_of(onnx: Any, node: Any, source: Any, sizes: dict[str, tuple[int, ...]]) -> Any:
    """What an operator of onnxruntime's makes of its first input, or None where edgekd does not know."""
    kind = source.type.tensor_type
    shape = [size.dim_value for size in kind.shape.dim]
    if node.op_type == "QLinearGlobalAveragePool":
        shape = [*shape[:2], 1, 1]
    elif node.op_type == "QGemm" and node.input[3] in sizes:
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        shape = [shape[0], sizes[node.input[3]][0 if transposed else 1]]
    elif node.op_type not in _KEEPS_SHAPE:
        return None
    return onnx.helper.make_tensor_value_info(node.output[0], kind.elem_type, shape)


class _Reader:
    def __init__(self, onnx: Any, model: Any) -> None:
        self.onnx = onnx
        self.model = model
        self.tensors: dict[str, GraphTensor] = {}

    def graph(self) -> Graph:
        source = self.model.graph
        for value in (*source.input, *source.output, *source.value_info):
            self.tensors[value.name] = self._value(value)
        for initializer in source.initializer:
            self._add_constant(initializer.name, self.onnx.numpy_helper.to_array(initializer))
        nodes = []
        for index, node in enumerate(source.node):
            if node.op_type == "Constant":
                attribute = self.onnx.helper.get_attribute_value(node.attribute[0])
                if node.attribute[0].name == "value":
                    self._add_constant(node.output[0], self.onnx.numpy_helper.to_array(attribute))
                    continue
                self._add_constant(node.output[0], np.asarray(attribute))
                continue
            nodes.append(self._node(index, node))
        self._fill_quantization(nodes)
        inputs = tuple(value.name for value in source.input if self.tensors[value.name].data is None)
        outputs = tuple(value.name for value in source.output)
        metadata = {entry.key: entry.value for entry in self.model.metadata_props}
        return Graph("onnx", self.tensors, tuple(nodes), inputs, outputs, metadata)

    def _add_constant(self, name: str, data: Array) -> None:
        self.tensors[name] = GraphTensor(name, tuple(data.shape), data.dtype.name, data)

    def _value(self, value: Any) -> GraphTensor:
        kind = value.type.tensor_type
        dtype = self.onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name if kind.elem_type else "unknown"
        return GraphTensor(value.name, tuple(int(size.dim_value) for size in kind.shape.dim), dtype)

    def _node(self, index: int, node: Any) -> GraphNode:
        attributes = {attribute.name: self.onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        for name in node.output:
            self.tensors.setdefault(name, GraphTensor(name, (), "unknown"))
        return GraphNode(node.name or node.output[0], op, tuple(node.input), tuple(node.output), attributes)

    def _fill_quantization(self, nodes: list[GraphNode]) -> None:
        """Copy scales and zero points from (de)quantize nodes onto their integer values."""
        for node in nodes:
            if node.op not in ("QuantizeLinear", "DequantizeLinear"):
                continue
            name = node.outputs[0] if node.op == "QuantizeLinear" else node.inputs[0]
            scale = self._data(node.inputs[1])
            zero_point = self._data(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
            old = self.tensors[name]
            dtype = (
                old.dtype if old.dtype != "unknown" else (zero_point.dtype.name if zero_point is not None else "uint8")
            )
            shape = old.shape or self.tensors[node.inputs[0]].shape
            self.tensors[name] = GraphTensor(
                name,
                shape,
                dtype,
                old.data,
                None if scale is None else np.atleast_1d(scale),
                None if zero_point is None else np.atleast_1d(zero_point).astype(np.int64),
                int(node.attributes.get("axis", 1)),
            )

    def _data(self, name: str) -> Array | None:
        tensor = self.tensors.get(name)
        return None if tensor is None else tensor.data
