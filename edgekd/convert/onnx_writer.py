"""Writes a network as ONNX: float32 input and output, quantize/dequantize pairs that onnxruntime fuses whole.

Activations are uint8 (onnxruntime fuses u8s8 everywhere, s8s8 only in part), weights int8 per output channel,
biases int32. Each constant has initializers of its own: onnxruntime's transformers refuse shared ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from edgekd.convert.extras import fit_module
from edgekd.errors import BuildError
from edgekd.nn.quantized.network import Array, Grid, Layer, Network

METADATA_NAME = "edgekd"
INPUT_NAME, OUTPUT_NAME = "input", "logits"
OPSET = 17
"""Opset 17 with IR 8 is read by every onnxruntime since 1.12 (2022)."""
_IR_VERSION = 8


def onnx_bytes(network: Network, opset: int = OPSET) -> bytes:
    """The file's bytes. Input `input` (1, C, H, W) and output `logits`, both float32.

    Raises:
        BuildError: a layer has no ONNX form, or the model does not pass ONNX's checker.
        MissingExtraError: onnx is not installed.
    """
    return _Writer(network, opset).finish()


class _Writer:
    def __init__(self, network: Network, opset: int) -> None:
        self.network = network
        self.opset = opset
        self.onnx = fit_module("onnx")
        self.helper = fit_module("onnx.helper")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.values: dict[str, str] = {}
        """The float value of each tensor: behind its dequantize node where it is quantized."""

    def finish(self) -> bytes:
        network = self.network
        self.publish(network.input, INPUT_NAME)
        for layer in network.layers:
            emitter = _EMITTERS.get(layer.kind)
            if emitter is None:
                raise BuildError(f"{layer.name}: '{layer.kind}' has no ONNX form")
            emitter(self, layer)
        return self._pack()

    def publish(self, tensor: str, value: str) -> None:
        """Put the float `value` on the tensor's grid, for its readers."""
        grid = self.network.tensors[tensor].grid
        self.values[tensor] = self.on_grid(value, tensor, grid) if grid else value

    def on_grid(self, value: str, name: str, grid: Grid) -> str:
        """A quantize and a dequantize node behind `value`; the readers of the result are fused with them."""
        quantized, result = f"{name}/q", f"{name}/dq"
        if name == self.network.output:
            result = OUTPUT_NAME
        for kind, source, target in (("QuantizeLinear", value, quantized), ("DequantizeLinear", quantized, result)):
            scale = self.constant(f"{target}/scale", np.array(grid.scale, np.float32))
            zero_point = self.constant(f"{target}/zero_point", np.array(grid.zero_point + 128, np.uint8))
            self.node(kind, [source, scale, zero_point], target)
        return result

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node; returns its output's name."""
        self.nodes.append(self.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, data: Array) -> str:
        """Add an initializer; returns its name."""
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(data, order="C"), name))
        return name

    def weighted(self, name: str, data: Array, scale: Array | None) -> str:
        """A constant as float: as it is, or dequantized per output channel (axis 0)."""
        if scale is None:
            return self.constant(name, data)
        stored = self.constant(f"{name}_quantized", data)
        scales = self.constant(f"{name}_scale", scale.astype(np.float32))
        zero_points = self.constant(f"{name}_zero_point", np.zeros(len(scale), data.dtype))
        return self.node("DequantizeLinear", [stored, scales, zero_points], name, axis=0)

    def weight_and_bias(self, layer: Layer) -> list[str]:
        """The layer's constants as float values."""
        assert layer.weight is not None and layer.bias is not None
        grid = self.network.tensors[layer.inputs[0]].grid
        bias_scale = layer.weight_scale * np.float32(grid.scale) if grid and layer.weight_scale is not None else None
        return [
            self.weighted(f"{layer.name}/weight", layer.weight, layer.weight_scale),
            self.weighted(f"{layer.name}/bias", layer.bias, bias_scale),
        ]

    def finish_layer(self, layer: Layer, value: str) -> None:
        """Apply the layer's activation, unless its grid already clips there, and publish its output."""
        grid = self.network.tensors[layer.output].grid
        if layer.activation != "none" and not (grid and clips(grid, layer.activation)):
            value = self._activation(layer, value)
        if grid is None and layer.output == self.network.output:
            self.nodes[-1].output[0] = value = OUTPUT_NAME
        self.publish(layer.output, value)

    def _activation(self, layer: Layer, value: str) -> str:
        if layer.activation == "relu":
            return self.node("Relu", [value], f"{layer.output}/relu")
        limits = [
            self.constant(f"{layer.output}/{name}", np.array(limit, np.float32))
            for name, limit in (("low", 0.0), ("high", 6.0))
        ]
        return self.node("Clip", [value, *limits], f"{layer.output}/relu6")

    def _pack(self) -> bytes:
        helper, network = self.helper, self.network
        float32 = self.onnx.TensorProto.FLOAT
        ends = [
            helper.make_tensor_value_info(name, float32, network.tensors[tensor].shape)
            for name, tensor in ((INPUT_NAME, network.input), (OUTPUT_NAME, network.output))
        ]
        graph = helper.make_graph(self.nodes, "edgekd", ends[:1], ends[1:], self.constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=_IR_VERSION,
            producer_name="edgekd",
        )
        helper.set_model_props(model, {METADATA_NAME: json.dumps({"scheme": network.scheme})})
        self.onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))


def clips(grid: Grid, activation: str) -> bool:
    """Whether saturation on the grid is the activation: it starts at 0, and for ReLU6 ends at 6 or before."""
    starts_at_zero = grid.zero_point == -128
    return starts_at_zero and (activation == "relu" or (127 - grid.zero_point) * grid.scale <= 6.0 + grid.scale / 2)


def _conv(writer: _Writer, layer: Layer) -> None:
    attributes = layer.attributes
    assert layer.weight is not None
    top, bottom, left, right = attributes["padding"]
    value = writer.node(
        "Conv",
        [writer.values[layer.inputs[0]], *writer.weight_and_bias(layer)],
        f"{layer.output}/conv",
        kernel_shape=layer.weight.shape[2:],
        strides=attributes["stride"],
        pads=[top, left, bottom, right],
        dilations=attributes["dilation"],
        group=attributes["groups"],
    )
    writer.finish_layer(layer, value)


def _linear(writer: _Writer, layer: Layer) -> None:
    inputs = [writer.values[layer.inputs[0]], *writer.weight_and_bias(layer)]
    writer.finish_layer(layer, writer.node("Gemm", inputs, f"{layer.output}/gemm", transB=1))


def _add(writer: _Writer, layer: Layer) -> None:
    inputs = [writer.values[name] for name in layer.inputs]
    writer.finish_layer(layer, writer.node("Add", inputs, f"{layer.output}/add"))


def _global_average_pool(writer: _Writer, layer: Layer) -> None:
    value = writer.node("GlobalAveragePool", [writer.values[layer.inputs[0]]], f"{layer.output}/pool")
    if not layer.attributes["keepdim"]:
        grid = writer.network.tensors[layer.output].grid
        if grid:
            value = writer.on_grid(value, f"{layer.output}/pooled", grid)
        value = writer.node("Flatten", [value], f"{layer.output}/flat")
    writer.finish_layer(layer, value)


def _reshape(writer: _Writer, layer: Layer) -> None:
    shape = writer.constant(f"{layer.output}/shape", np.array([1, *layer.attributes["shape"]], np.int64))
    value = writer.node("Reshape", [writer.values[layer.inputs[0]], shape], f"{layer.output}/reshaped")
    writer.finish_layer(layer, value)


_EMITTERS: dict[str, Callable[[_Writer, Layer], None]] = {
    "conv": _conv,
    "linear": _linear,
    "add": _add,
    "global_average_pool": _global_average_pool,
    "reshape": _reshape,
}
