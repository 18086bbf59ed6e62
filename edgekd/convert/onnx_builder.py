"""Collects the nodes and initializers of an ONNX file.

Activations are uint8 (onnxruntime fuses u8s8 everywhere, s8s8 only in part), weights int8 per output channel,
biases int32. Scales and zero points have initializers of their own: onnxruntime's transformers refuse shared ones.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np

from edgekd.convert.extras import fit_module
from edgekd.convert.graph import METADATA_NAME, claims
from edgekd.convert.inference import quantize_input
from edgekd.errors import BuildError
from edgekd.nn.quantized.network import CEILINGS, Activation, Array, Grid, Layer, Network
from edgekd.nn.quantized.scheme import SCHEMES

INPUT_NAME, OUTPUT_NAME = "input", "logits"


class OnnxBuilder:
    """Collects nodes and initializers while emitters write the layers."""

    def __init__(self, network: Network, opset: int) -> None:
        self.network = network
        self.opset = opset
        self.onnx = fit_module("onnx")
        self.helper = fit_module("onnx.helper")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._held: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.symmetric = SCHEMES[network.scheme].symmetric
        self.half = network.scheme == "fp16"
        self.values: dict[str, str] = {}
        """The float value of each tensor: behind its dequantize node where it is quantized."""
        self.quantized: dict[str, str] = {}
        """The integers of each quantized tensor."""

    def read_input(self) -> None:
        """Declare the network's input, on its grid where it has one."""
        network = self.network
        grid = network.tensors[network.input].grid
        self.values[network.input] = self.on_grid(INPUT_NAME, network.input, grid) if grid else INPUT_NAME
        if self.half and not network.tensors[network.input].integer:
            kind = self.onnx.TensorProto.FLOAT16
            self.values[network.input] = self.node("Cast", [INPUT_NAME], f"{network.input}/half", to=kind)

    def on_grid(self, value: str, name: str, grid: Grid, activation: Activation = "none") -> str:
        """A quantize and a dequantize node behind `value`; the readers of the result are fused with them.

        An activation that saturation does not imply is clipped between the two, as an integer: in front of them
        it would keep the operator before it from being fused.
        """
        quantized, result = f"{name}/q", OUTPUT_NAME if name == self.network.output else f"{name}/dq"
        if activation != "none" and self.symmetric:
            value, activation = self._activation(name, activation, value), "none"
        self.boundary("QuantizeLinear", value, quantized, grid)
        if activation != "none":
            low = grid.zero_point + 128
            high = min(255, low + round(CEILINGS.get(activation, 256 * grid.scale) / grid.scale))
            limits = [
                self.constant(f"{name}/{side}", np.array(limit, np.uint8))
                for side, limit in (("low", low), ("high", high))
            ]
            quantized = self.node("Clip", [quantized, *limits], f"{name}/clipped")
        self.quantized[name] = quantized
        return self.boundary("DequantizeLinear", quantized, result, grid)

    def boundary(self, kind: str, source: str, target: str, grid: Grid) -> str:
        """A quantize or dequantize node on a grid."""
        scale = self.constant(f"{target}/scale", np.array(grid.scale, np.float32))
        kind_of_zero = np.dtype(f"int{grid.bits}") if self.symmetric else np.dtype(np.uint8)
        offset = grid.zero_point + (0 if self.symmetric else 128)
        zero_point = self.constant(f"{target}/zero_point", np.array(offset, kind_of_zero))
        return self.node(kind, [source, scale, zero_point], target)

    def stored_on_grid(self, data: Array, name: str, grid: Grid) -> str:
        """A constant stored as integers on a grid, as float."""
        kind = np.dtype(f"int{grid.bits}") if self.symmetric else np.dtype(np.uint8)
        zero_point = grid.zero_point + (0 if self.symmetric else 128)
        stored = self.constant(f"{name}/stored", quantize_input(data, grid.scale, zero_point, kind))
        return self.boundary("DequantizeLinear", stored, f"{name}/dq", grid)

    def between(self, value: str, name: str, grid: Grid | None) -> str:
        """A value between two nodes of one layer, on its grid where there is one."""
        return self.on_grid(value, name, grid) if grid else value

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node; returns its output's name.

        Raises:
            BuildError: the opset is older than the operator.
        """
        since = _first_opset(kind)
        if since > self.opset:
            raise BuildError(f"{output}: {kind} came with opset {since}, not in {self.opset}")
        self.nodes.append(self.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, data: Array) -> str:
        """Add an initializer; returns its name. Floats are float16 where the network computes in it.

        Equal weights share one, such as those of a layer that is called twice. Constants of one value (a mean's, a
        gate's) do not: onnxruntime may rewrite them in place, and refuses to do so twice.
        """
        if self.half and data.dtype == np.float32:
            data = data.astype(np.float16)
        stored = np.asarray(data, order="C")
        if stored.ndim > 1 and np.any(stored != stored.flat[0]):
            held = self._held.setdefault((str(stored.dtype), stored.shape, stored.tobytes()), name)
            if held != name:
                return held
        self.constants.append(self.onnx.numpy_helper.from_array(stored, name))
        return name

    def weighted(self, name: str, data: Array, scale: Array | None) -> str:
        """A constant as float: as it is, or dequantized per output channel (axis 0)."""
        if scale is None:
            return self.constant(name, data)
        stored = self.constant(f"{name}_quantized", data)
        scales = self.constant(f"{name}_scale", scale.astype(np.float32))
        zero_points = self.constant(f"{name}_zero_point", np.zeros(len(scale), data.dtype))
        return self.node("DequantizeLinear", [stored, scales, zero_points], name, axis=0)

    def weighted_inputs(self, layer: Layer) -> list[str]:
        """The layer's input, weight and bias as float values."""
        assert layer.weight is not None
        source, weight = self.values[layer.inputs[0]], layer.weight
        if self._stands_alone(layer):
            # onnxruntime quantizes the float weights of a convolution or Gemm between a dequantize and a quantize
            # node by itself, per tensor (its WeightBiasQuantization). (-x)(-w) is the same to the last bit.
            source, weight = self.node("Neg", [source], f"{layer.output}/negative"), -weight
        return [source, *self._weight_and_bias(layer, weight)]

    def _stands_alone(self, layer: Layer) -> bool:
        """Whether a layer in float has borders on both sides."""
        borders = {entry.output for entry in self.network.layers if entry.kind == "dequantize"}
        behind = {entry.kind for entry in self.network.layers if layer.output in entry.inputs}
        return layer.weight_scale is None and layer.inputs[0] in borders and "quantize" in behind

    def _weight_and_bias(self, layer: Layer, weight: Array) -> list[str]:
        assert layer.bias is not None
        grid = self.network.tensors[layer.inputs[0]].grid
        integer = np.issubdtype(layer.bias.dtype, np.integer)
        bias, bias_scale = layer.bias, None
        if grid and integer and layer.weight_scale is not None:
            bias_scale = layer.weight_scale * np.float32(grid.scale)
            if bias.dtype == np.int64:
                # DequantizeLinear takes no int64, which the biases of int16 activations need.
                bias, bias_scale = (bias * bias_scale).astype(np.float32), None
        return [
            self.weighted(f"{layer.name}/weight", weight, layer.weight_scale),
            self.weighted(f"{layer.name}/bias", bias, bias_scale),
        ]

    def finish_layer(self, layer: Layer, value: str) -> None:
        """Apply the layer's activation, unless its grid already clips there, and publish its output."""
        grid = self.network.tensors[layer.output].grid
        if grid is not None:
            clipped = layer.activation != "none" and not clips(grid, layer.activation)
            self.values[layer.output] = self.on_grid(value, layer.output, grid, layer.activation if clipped else "none")
            return
        if layer.activation != "none":
            value = self._activation(layer.output, layer.activation, value)
        if layer.output == self.network.output and self.half:
            value = self.node("Cast", [value], OUTPUT_NAME, to=self.onnx.TensorProto.FLOAT)
        self.publish(layer, value)

    def publish(self, layer: Layer, value: str) -> None:
        """Let `value` be the layer's output, under the file's name for it where it is the network's."""
        if layer.output == self.network.output and value != OUTPUT_NAME:
            if self.nodes[-1].output[0] != value:
                self.node("Identity", [value], OUTPUT_NAME)
            self.nodes[-1].output[0] = value = OUTPUT_NAME
        self.values[layer.output] = value

    def _activation(self, name: str, activation: Activation, value: str) -> str:
        if activation == "relu":
            return self.node("Relu", [value], f"{name}/relu")
        limits = [
            self.constant(f"{name}/{side}", np.array(limit, np.float32))
            for side, limit in (("low", 0.0), ("high", CEILINGS[activation]))
        ]
        return self.node("Clip", [value, *limits], f"{name}/clip")

    def _read_nodes(self) -> list[Any]:
        """The nodes without dequantize nodes that nothing reads, because integers were read instead."""
        read = {name for node in self.nodes for name in node.input} | {OUTPUT_NAME}
        return [node for node in self.nodes if node.op_type != "DequantizeLinear" or node.output[0] in read]

    def pack(self) -> bytes:
        """The file's bytes, once every layer is emitted."""
        helper, network = self.helper, self.network
        float32 = self.onnx.TensorProto.FLOAT
        source = self.onnx.TensorProto.INT32 if network.tensors[network.input].integer else float32
        ends = [
            helper.make_tensor_value_info(name, kind, network.tensors[tensor].shape)
            for name, tensor, kind in ((INPUT_NAME, network.input, source), (OUTPUT_NAME, network.output, float32))
        ]
        opset = [helper.make_opsetid("", self.opset)]
        graph = helper.make_graph(self._read_nodes(), "edgekd", ends[:1], ends[1:], self.constants)
        model = helper.make_model(
            graph,
            opset_imports=opset,
            ir_version=helper.find_min_ir_version_for(opset),
            producer_name="edgekd",
        )
        helper.set_model_props(model, {METADATA_NAME: json.dumps(claims(network))})
        self.onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))


@functools.cache
def _first_opset(kind: str) -> int:
    """The opset that an operator of ONNX's own domain came with."""
    schemas = fit_module("onnx.defs").get_all_schemas_with_history()
    return min(int(schema.since_version) for schema in schemas if schema.name == kind and not schema.domain)


def clips(grid: Grid, activation: str) -> bool:
    """Whether saturation on the grid is the activation: it starts at 0 and ends at the ceiling or before."""
    ceiling = CEILINGS.get(activation, float("inf"))
    return grid.zero_point == -128 and (127 - grid.zero_point) * grid.scale <= ceiling + grid.scale / 2
