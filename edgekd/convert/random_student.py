"""Files of untrained students, for measuring latency: the same operators and shapes, random weights, in a second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.convert.extras import fit_module
from edgekd.convert.isolated import write_network
from edgekd.records import Scheme

if TYPE_CHECKING:
    from torch import Tensor, nn

_CALIBRATION_INPUTS = 4


def write_random_student(model: nn.Module, example: Tensor, path: Path, scheme: Scheme = "wi8_ai8") -> None:
    """Write an untrained model in the format of the path's suffix, calibrated on noise.

    The file runs exactly the operators that the trained student's would, so its latency stands for it; its
    outputs mean nothing.

    Args:
        model: the untrained module, from (N, ...) float32 to (N, classes).
        example: one input, (1, ...) float32; only its shape matters.
        path: where the .tflite or .onnx goes.
        scheme: `wi8_ai8` or `fp32`.

    Raises:
        BuildError: an operator has no form in the scheme or the format.
    """
    from edgekd.nn.quantized.model import quantize_model

    torch = fit_module("torch")
    quantized = quantize_model(model, example, scheme)
    noise = torch.randn(_CALIBRATION_INPUTS, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    quantized.calibrate([noise])
    write_network(quantized.network(), path)
