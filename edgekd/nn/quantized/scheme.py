"""What each scheme's name means for weights, biases and activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekd.records import Scheme


@dataclass(frozen=True, slots=True)
class SchemeSpec:
    """How the numbers of a scheme are stored.

    `activation_bits` is None where activations stay float. `symmetric` activations have zero point 0, so that
    saturation clips nothing at 0. `integer_bias` puts biases on the grid of input scale times weight scale.
    """

    weights: Literal["int8", "float16", "float32"]
    activation_bits: Literal[8, 16] | None
    symmetric: bool = False
    integer_bias: bool = True


SCHEMES: dict[Scheme, SchemeSpec] = {
    "wi8_ai8": SchemeSpec("int8", 8),
    # Some layers in float between int8 ones: `QuantizedModel.keep_float` makes it of wi8_ai8.
    "wi8_ai8_mixed": SchemeSpec("int8", 8),
    # TensorRT's explicit quantization wants zero point 0 and takes no quantized bias.
    "wi8_ai8_symmetric": SchemeSpec("int8", 8, symmetric=True, integer_bias=False),
    "wi8_ai16": SchemeSpec("int8", 16, symmetric=True),
    "wi8": SchemeSpec("int8", None, integer_bias=False),
    "fp16": SchemeSpec("float16", None),
    "fp32": SchemeSpec("float32", None),
}
