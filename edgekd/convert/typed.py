"""What each operator of a file computes in: integers or floats.

A TFLite operator takes integers directly. An ONNX operator stands between dequantize and quantize nodes, which
a runtime fuses with it; here those nodes are folded away, so that both formats look alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekd.convert.graph import Graph, GraphNode, GraphTensor

Numeric = Literal["int8", "int16", "fp16", "fp32", "dynamic", "weight-only", "index"]
"""`dynamic`: int8 weights, float activations quantized while running. `weight-only`: int8 weights dequantized
while running, float arithmetic. `index`: shapes and indices, which carry no numbers of the network."""

WEIGHTED = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
    "CONV_3D": 1,
    "BATCH_MATMUL": 1,
    "Conv": 1,
    "ConvTranspose": 1,
    "Gemm": 1,
    "MatMul": 1,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "com.microsoft.QGemm": 3,
    "com.microsoft.FusedConv": 1,
    "com.microsoft.MatMulIntegerToFloat": 1,
    "com.microsoft.DynamicQuantizeMatMul": 1,
}
"""Operators with a weight, and which input it is."""
_BIAS = {"QLinearConv": 8, "com.microsoft.QGemm": 6}
_QUANTIZE = {"QUANTIZE", "QuantizeLinear"}
_DEQUANTIZE = {"DEQUANTIZE", "DequantizeLinear"}
_DYNAMIC = {
    "DynamicQuantizeLinear",
    "ConvInteger",
    "MatMulInteger",
    "com.microsoft.MatMulIntegerToFloat",
    "com.microsoft.DynamicQuantizeMatMul",
}
_CLIPPING = {"Relu", "Clip"}
_FUSED_BY_ONNXRUNTIME = {
    *("Add", "ArgMax", "AveragePool", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Expand", "Flatten"),
    *("Gather", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "Reshape", "Resize"),
    *("Sigmoid", "Slice", "Softmax", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze", "Where"),
}
"""Operators that onnxruntime computes in integers between a dequantize and a quantize node (its QDQ selectors)."""
_FLOATS = {"float32": "fp32", "float64": "fp32", "float16": "fp16", "bfloat16": "fp16"}


@dataclass(frozen=True, slots=True)
class TypedNode:
    """An operator with what it computes in. `inputs` and `outputs` are its activations, integers by their own name."""

    node: GraphNode
    numeric: Numeric
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weight: GraphTensor | None = None
    bias: GraphTensor | None = None

    @property
    def is_quantize(self) -> bool:
        """Whether the operator only moves values between numeric types."""
        return self.node.op in _QUANTIZE | _DEQUANTIZE


def typed_nodes(graph: Graph) -> tuple[TypedNode, ...]:
    """The file's operators without the (de)quantize nodes and activations that a runtime fuses into others."""
    return _Typer(graph).run()


def _interpolates(node: GraphNode) -> bool:
    """Whether a Resize makes new values, which onnxruntime does in float: it moves integers only."""
    return node.op == "Resize" and node.attributes.get("mode") not in ("nearest", b"nearest", None)


class _Typer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self.readers = graph.readers()
        self.absorbed: set[str] = set()

    def run(self) -> tuple[TypedNode, ...]:
        typed = [self._typed(node) for node in self.graph.nodes if node.op not in _QUANTIZE | _DEQUANTIZE]
        kept = [entry for entry in typed if not self.absorbed.intersection(entry.node.outputs)]
        used = {name for entry in kept for name in entry.inputs} | set(self.graph.outputs)
        made = {name for entry in kept for name in entry.outputs} | set(self.graph.inputs)
        loose = [self._loose(node, used, made) for node in self.graph.nodes if node.op in _QUANTIZE | _DEQUANTIZE]
        order = {id(node): position for position, node in enumerate(self.graph.nodes)}
        everything = [*kept, *(entry for entry in loose if entry is not None)]
        return tuple(sorted(everything, key=lambda entry: order[id(entry.node)]))

    def _loose(self, node: GraphNode, used: set[str], made: set[str]) -> TypedNode | None:
        """A (de)quantize node that no operator absorbed: at the file's boundary, between floats, or on its own."""
        source, result = node.inputs[0], node.outputs[0]
        if self.graph.constant(source):
            return None
        if self.graph.format == "onnx":
            if node.op in _QUANTIZE and source not in made and source not in self.graph.inputs:
                return None
            if node.op in _DEQUANTIZE and result not in used:
                return None
        return TypedNode(node, self._numeric_of_type(self._type(source)), (source,), (result,))

    def _typed(self, node: GraphNode) -> TypedNode:
        folds = self.graph.format == "onnx" and node.op in _FUSED_BY_ONNXRUNTIME | _CLIPPING and not _interpolates(node)
        position = WEIGHTED.get(node.op)
        weight_name = node.inputs[position] if position is not None and len(node.inputs) > position else ""
        constant, dequantized = self._constant(weight_name)
        bias_at = _BIAS.get(node.op, position + 1 if position is not None else 0)
        bias_name = node.inputs[bias_at] if position is not None and len(node.inputs) > bias_at else ""
        bias, _ = self._constant(bias_name)
        sources = [
            name
            for name in node.inputs
            if name and self._constant(name)[0] is None and not (bias is not None and name == bias_name)
        ]
        inputs = tuple(self._integer_source(name) for name in sources)
        outputs = tuple(self._integer_sink(name) for name in node.outputs)
        if folds and not (self._all_integer(inputs) and self._all_integer(outputs)):
            inputs, outputs, folds = tuple(sources), node.outputs, False
        elif not folds:
            inputs, outputs = tuple(sources), node.outputs
        else:
            self._absorb_activation(node.outputs[0])
        return TypedNode(
            node, self._numeric(node, inputs, outputs, constant, dequantized, folds), inputs, outputs, constant, bias
        )

    def _constant(self, name: str) -> tuple[GraphTensor | None, bool]:
        """The stored tensor behind a value, and whether it is dequantized while running."""
        if self.graph.constant(name):
            return self.graph.tensors[name], False
        producer = self.producers.get(name)
        if producer is not None and producer.op in _DEQUANTIZE and self.graph.constant(producer.inputs[0]):
            return self.graph.tensors[producer.inputs[0]], True
        if producer is not None and producer.op in (
            "QuantizeLinear",
            "Transpose",
            "TRANSPOSE",
            "Cast",
            "CAST",
            "Identity",
        ):
            tensor, _ = self._constant(producer.inputs[0])
            return tensor, True
        return None, False

    def _integer_source(self, name: str) -> str:
        producer = self.producers.get(name)
        return producer.inputs[0] if producer is not None and producer.op in _DEQUANTIZE else name

    def _integer_sink(self, name: str) -> str:
        readers = self.readers.get(name, [])
        if len(readers) == 1 and readers[0].op in _CLIPPING and self._saturates(readers[0]):
            return self._integer_sink(readers[0].outputs[0])
        quantizing = [reader for reader in readers if reader.op in _QUANTIZE]
        if quantizing and len(quantizing) == len(readers) and name not in self.graph.outputs:
            return quantizing[0].outputs[0]
        return name

    def _saturates(self, node: GraphNode) -> bool:
        """Whether the grid behind an activation already ends where it clips below, so that it costs nothing."""
        sink = self._integer_sink(node.outputs[0])
        tensor = self.graph.tensors.get(sink)
        if tensor is None or tensor.zero_points is None:
            return False
        # TensorRT fuses an activation in front of a symmetric grid, and takes no other grid.
        symmetric = tensor.dtype in ("int8", "int16") and not tensor.zero_points.any()
        return symmetric or int(tensor.zero_points[0]) == {"int8": -128, "uint8": 0, "int16": -32768}.get(tensor.dtype)

    def _absorb_activation(self, output: str) -> None:
        readers = self.readers.get(output, [])
        if len(readers) == 1 and readers[0].op in _CLIPPING and self._saturates(readers[0]):
            self.absorbed.add(readers[0].outputs[0])

    def _all_integer(self, names: tuple[str, ...]) -> bool:
        return all(self._type(name) not in _FLOATS and self._type(name) != "unknown" for name in names)

    def _type(self, name: str) -> str:
        tensor = self.graph.tensors.get(name)
        return tensor.dtype if tensor is not None else "unknown"

    def _numeric_of_type(self, dtype: str) -> Numeric:
        if dtype in _FLOATS:
            return "fp16" if _FLOATS[dtype] == "fp16" else "fp32"
        return {"int8": "int8", "uint8": "int8", "int16": "int16", "uint16": "int16"}.get(dtype, "index")  # type: ignore[return-value]

    def _numeric(
        self,
        node: GraphNode,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        weight: GraphTensor | None,
        dequantized: bool,
        folded: bool,
    ) -> Numeric:
        if node.op in _DYNAMIC:
            return "dynamic"
        kinds = {self._numeric_of_type(self._type(name)) for name in (*inputs, *outputs)} - {"index"}
        integers = weight is not None and weight.dtype in ("int8", "uint8", "int4", "uint4", "int2")
        if "fp32" in kinds or "fp16" in kinds:
            if integers:
                return "weight-only" if dequantized else "dynamic"
            if weight is not None and weight.dtype == "float16":
                return "fp16"
            return "fp32" if "fp32" in kinds else "fp16"
        if weight is not None and not integers:
            return "fp32"
        if "int16" in kinds:
            return "int16"
        return "int8" if "int8" in kinds else "index"
