"""Parity: do the forms of one student say the same on the same real inputs?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekd.convert.divergence import Form, first_divergent_layer, layer_differences
from edgekd.convert.extras import fit_module
from edgekd.convert.inference import run_model
from edgekd.core.spread import evenly
from edgekd.errors import BuildError
from edgekd.nn.quantized.network import Array
from edgekd.records import Parity

if TYPE_CHECKING:
    from torch import nn

    from edgekd.nn.quantized.model import QuantizedModel

LEAST_AGREEMENT = 0.99
DEPLOYED: tuple[tuple[Form, Form], ...] = (("torch", "onnx"), ("torch", "tflite"), ("onnx", "tflite"))
_REFERENCE: tuple[tuple[Form, Form], ...] = (("onnx", "tflite reference"),)
GATED = (*DEPLOYED, *_REFERENCE)
"""The pairs that hold one set of parameters and should agree; a build fails on those that are deployed."""
LADDER: tuple[tuple[Form, Form], ...] = (
    ("torch", "onnx"),
    ("onnx", "onnx deployed"),
    ("onnx", "tflite reference"),
    ("tflite reference", "tflite"),
    ("onnx", "tflite"),
)
_TORCH_BATCH = 64
_SEARCH_INPUTS = 32
_REFERENCE_INPUTS = 200
"""The reference kernels take up to 50 times as long as the deployed ones."""


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


def torch_logits(model: nn.Module, inputs: Array) -> Array:
    """Logits (N, classes) of a torch model in inference mode, on its own device."""
    torch = fit_module("torch")
    from edgekd.nn.evaluation import device_of, evaluating

    device = device_of(model)
    with torch.no_grad(), evaluating(model):
        batches = [
            model(torch.from_numpy(inputs[start : start + _TORCH_BATCH]).to(device)).cpu().numpy()
            for start in range(0, len(inputs), _TORCH_BATCH)
        ]
    return np.concatenate(batches)


def measure_parity(
    model: QuantizedModel,
    tflite: Path,
    onnx: Path,
    inputs: Array,
    pairs: tuple[tuple[Form, Form], ...] = DEPLOYED,
    float_model: nn.Module | None = None,
) -> tuple[Parity, ...]:
    """How far forms of one student agree over inputs (N, C, H, W) float32.

    Args:
        model: the fake-quantized model the files were made from.
        tflite: the int8 TFLite file.
        onnx: the int8 ONNX file.
        inputs: real inputs, the same for every form.
        pairs: the forms to compare: `DEPLOYED`, or `LADDER` for every rung.
        float_model: where given, its distance to the fake-quantized model is reported first.

    Returns:
        One record a pair; where a pair agrees on less than 99 %, the layer at which it parts is named.
    """
    logits = {
        form: form_logits(form, model, tflite, onnx, inputs) for form in {form for pair in pairs for form in pair}
    }
    found = rungs(model, inputs, pairs, logits)
    if float_model is None:
        return found
    torch_form = logits.get("torch", torch_logits(model, inputs))
    return (float_rung(model, inputs, torch_logits(float_model, inputs), torch_form), *found)


def form_logits(form: Form, model: QuantizedModel, tflite: Path, onnx: Path, inputs: Array) -> Array:
    """Logits (N, classes) of one form over inputs (N, C, H, W) float32; arguments as for `measure_parity`."""
    if form == "torch":
        return torch_logits(model, inputs)
    if form in ("onnx", "onnx deployed"):
        return run_model(onnx, inputs, "exact" if form == "onnx" else "deployed")
    return run_model(tflite, inputs, "reference" if form == "tflite reference" else "deployed")


def rungs(
    model: QuantizedModel, inputs: Array, pairs: tuple[tuple[Form, Form], ...], logits: Mapping[Form, Array]
) -> tuple[Parity, ...]:
    """One record a pair from the forms' logits; where a pair falls short, its layer is looked for over `inputs`."""
    scale = model.network().output_scale()
    return tuple(_rung(model, inputs, pair, logits, scale) for pair in pairs)


def float_rung(model: QuantizedModel, inputs: Array, float_logits: Array, torch_form: Array) -> Parity:
    """The float model against the fake-quantized one; where they fall short, the layer that rounding hurts most."""
    from edgekd.nn.evaluation import device_of
    from edgekd.nn.quantized.noise import layer_noise

    parity = compare("float-torch", float_logits, torch_form, model.network().output_scale())
    if parity.top1_agreement >= LEAST_AGREEMENT:
        return parity
    torch = fit_module("torch")
    found = layer_noise(model, torch.from_numpy(inputs[:_SEARCH_INPUTS]).to(device_of(model)))
    if not found:
        return parity
    worst = min(found, key=lambda noise: noise.sqnr_db)
    place = (
        f"{worst.layer} ({worst.kind}, range {worst.low:.3g} to {worst.high:.3g}): "
        f"{worst.sqnr_db:.1f} dB of signal over rounding, {worst.saturated:.1%} saturated"
    )
    return parity.model_copy(update={"first_divergent_layer": place})


def _rung(
    model: QuantizedModel, inputs: Array, pair: tuple[Form, Form], logits: Mapping[Form, Array], scale: float
) -> Parity:
    first, second = pair
    parity = compare(f"{first}-{second}", logits[first], logits[second], scale)
    if parity.top1_agreement >= LEAST_AGREEMENT:
        return parity
    part = first_divergent_layer(layer_differences(model, inputs[:_SEARCH_INPUTS], first, second))
    place = (
        part.describe() if part is not None else "no single layer: rounding adds up, or the files hold another model"
    )
    return parity.model_copy(update={"first_divergent_layer": place})


def check_parity(
    model: QuantizedModel, tflite: Path, onnx: Path, inputs: Array, warn: Callable[[str], None]
) -> tuple[Parity, ...]:
    """The gated pairs, as `measure_parity` gives them; that with the reference kernels over 200 inputs at most.

    `warn` is told where the reference kernels fall short: they round as microcontrollers do, and no board of ours.

    Raises:
        BuildError: a deployed pair agrees on less than 99 % of the inputs' top-1 classes; the layer where they part is
            named.
    """
    few = inputs[evenly(len(inputs), _REFERENCE_INPUTS)]
    deployed = measure_parity(model, tflite, onnx, inputs, DEPLOYED)
    reference = measure_parity(model, tflite, onnx, few, _REFERENCE)
    for pair in deployed:
        if pair.top1_agreement < LEAST_AGREEMENT:
            raise BuildError(_shortfall(pair))
    for pair in reference:
        if pair.top1_agreement < LEAST_AGREEMENT:
            warn(f"{_shortfall(pair)}; the runtimes that are deployed agree")
    return (*deployed, *reference)


def _shortfall(pair: Parity) -> str:
    return (
        f"parity: {pair.pair} agree on {pair.top1_agreement:.2%} of {pair.inputs} inputs, below "
        f"{LEAST_AGREEMENT:.0%}, with logits up to {pair.max_abs_lsb} LSB apart. They part at "
        f"{pair.first_divergent_layer}"
    )
