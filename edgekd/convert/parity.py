"""Parity: do the forms of one student say the same on the same real inputs?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekd.convert.extras import fit_module
from edgekd.convert.inference import run_model
from edgekd.errors import BuildError
from edgekd.nn.quantized.network import Array
from edgekd.records import Parity

if TYPE_CHECKING:
    from edgekd.nn.quantized.model import QuantizedModel

LEAST_AGREEMENT = 0.99
_TORCH_BATCH = 64


def compare(pair: str, first: Array, second: Array, scale: float) -> Parity:
    """How far two forms' logits agree.

    Args:
        pair: the two forms' names, for the record.
        first: logits (N, classes) float32 of one form.
        second: logits of the other, same shape.
        scale: the logits' step: one LSB of the int8 output.
    """
    steps = np.abs(np.rint((first.astype(np.float64) - second) / scale))
    return Parity(
        pair=pair,
        inputs=len(first),
        top1_agreement=float(np.mean(first.argmax(1) == second.argmax(1))),
        max_abs_lsb=int(steps.max()),
        mean_abs_lsb=float(steps.mean()),
        identical_logits=float(np.mean(steps == 0)),
    )


def torch_logits(model: QuantizedModel, inputs: Array) -> Array:
    """Logits (N, classes) of the fake-quantized model in inference mode, on its own device."""
    torch = fit_module("torch")
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with torch.no_grad():
        batches = [
            model(torch.from_numpy(inputs[start : start + _TORCH_BATCH]).to(device)).cpu().numpy()
            for start in range(0, len(inputs), _TORCH_BATCH)
        ]
    model.train(training)
    return np.concatenate(batches)


def measure_parity(model: QuantizedModel, tflite: Path, onnx: Path, inputs: Array) -> tuple[Parity, ...]:
    """The gated pairs over inputs (N, C, H, W) float32: fake-quantized torch, ONNX in exact mode, TFLite."""
    scale = model.network().output_scale()
    logits = {
        "torch": torch_logits(model, inputs),
        "onnx": run_model(onnx, inputs, "exact"),
        "tflite": run_model(tflite, inputs),
    }
    pairs = (("torch", "onnx"), ("torch", "tflite"), ("onnx", "tflite"))
    return tuple(compare(f"{first}-{second}", logits[first], logits[second], scale) for first, second in pairs)


def check_parity(model: QuantizedModel, tflite: Path, onnx: Path, inputs: Array) -> tuple[Parity, ...]:
    """The gated pairs, as `measure_parity` gives them.

    Raises:
        BuildError: a pair agrees on less than 99 % of the inputs' top-1 classes.
    """
    pairs = measure_parity(model, tflite, onnx, inputs)
    for pair in pairs:
        if pair.top1_agreement < LEAST_AGREEMENT:
            raise BuildError(
                f"parity: {pair.pair} agree on {pair.top1_agreement:.2%} of {pair.inputs} inputs, below "
                f"{LEAST_AGREEMENT:.0%} (logits up to {pair.max_abs_lsb} LSB apart); train or calibrate longer, "
                "or look at the layers' ranges"
            )
    return pairs
