"""Writes a network as ONNX: float32 input and output, quantize/dequantize pairs that onnxruntime fuses whole."""

from __future__ import annotations

from edgekd.convert.extras import fit_module
from edgekd.convert.onnx_builder import OnnxBuilder
from edgekd.convert.onnx_emitters import EMITTERS
from edgekd.errors import BuildError
from edgekd.nn.quantized.network import Network
from edgekd.nn.quantized.scheme import SCHEMES
from edgekd.records import Scheme

OPSET = 17
"""Opset 17 with IR 8 is read by every onnxruntime since 1.12 (2022)."""
_PER_CHANNEL_OPSET, _INT16_OPSET = 13, 21
"""The first whose DequantizeLinear has an axis, and the first that quantizes to sixteen bits."""


def onnx_bytes(network: Network, opset: int | None = None) -> bytes:
    """The file's bytes. Input `input` (1, C, H, W) and output `logits`, both float32.

    Args:
        network: what to write.
        opset: the opset of the file; None is 17, or 21 where activations have sixteen bits.

    Raises:
        BuildError: a layer has no ONNX form, the opset cannot carry the network, or ONNX's checker refuses the model.
        MissingExtraError: onnx is not installed.
    """
    require_opset(network.scheme, opset)
    builder = OnnxBuilder(network, opset or max(OPSET, _least_opset(network.scheme)))
    builder.read_input()
    for layer in network.layers:
        emitter = EMITTERS.get(layer.kind)
        if emitter is None:
            raise BuildError(f"{layer.name}: '{layer.kind}' has no ONNX form")
        emitter(builder, layer)
    return builder.pack()


def require_opset(scheme: Scheme, opset: int | None) -> None:
    """Refuse an opset that cannot carry a scheme.

    Raises:
        BuildError: it is older than what the scheme needs, or newer than the installed onnx.
        MissingExtraError: onnx is not installed.
    """
    if opset is None:
        return
    least, newest = _least_opset(scheme), fit_module("onnx.defs").onnx_opset_version()
    if opset < least:
        reason = "16-bit activations" if least == _INT16_OPSET else "a scale per channel"
        raise BuildError(f"opset {opset} cannot carry {scheme}: {reason} came with opset {least}")
    if opset > newest:
        raise BuildError(f"opset {opset} is unknown to the installed onnx, whose newest is {newest}")


def _least_opset(scheme: Scheme) -> int:
    return _INT16_OPSET if SCHEMES[scheme].activation_bits == 16 else _PER_CHANNEL_OPSET
