"""Writes a network as a TFLite flatbuffer, operator by operator: NHWC, static shapes, one signature.

Every grid of the network becomes the tensor's quantization as it is, so that the file computes what the
fake-quantized model does. Operator semantics: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
"""

from __future__ import annotations

from edgekd.convert.tflite_builder import TfliteBuilder
from edgekd.convert.tflite_emitters import EMITTERS
from edgekd.errors import BuildError
from edgekd.nn.quantized.network import Network


def tflite_bytes(network: Network) -> bytes:
    """The file's bytes. Input `input` (1, H, W, C) and output `logits`, integer where the network is, else float32.

    Raises:
        BuildError: a layer, or the network's scheme, has no TFLite form.
        MissingExtraError: the flatbuffer schema is not installed.
    """
    if network.scheme == "wi8_ai8_symmetric":
        raise BuildError("scheme wi8_ai8_symmetric is TensorRT's and has no TFLite form: write ONNX, or use wi8_ai8")
    builder = TfliteBuilder(network)
    builder.read_input()
    for layer in network.layers:
        emitter = EMITTERS.get(layer.kind)
        if emitter is None:
            raise BuildError(f"{layer.name}: '{layer.kind}' has no TFLite form")
        emitter(builder, layer)
    if network.output in builder.flattened:
        raise BuildError(f"{network.layers[-1].name}: the output is a flattened image, whose order TFLite changes")
    return builder.pack()
