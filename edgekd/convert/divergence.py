"""Where two forms of one network part: the network cut off behind each layer, run in both, compared."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgekd.convert.extras import fit_module
from edgekd.convert.inference import Kernels, run_model
from edgekd.convert.isolated import write_network
from edgekd.nn.quantized.network import Array, Layer, Network

if TYPE_CHECKING:
    from edgekd.nn.quantized.model import QuantizedModel

Form = Literal["torch", "tflite", "tflite reference", "onnx", "onnx deployed"]
"""`torch` is the fake-quantized model, `onnx` onnxruntime in exact mode, `tflite` LiteRT with XNNPACK."""
_FILES: dict[str, tuple[str, Kernels]] = {
    "tflite": ("cut.tflite", "deployed"),
    "tflite reference": ("cut.tflite", "reference"),
    "onnx": ("cut.onnx", "exact"),
    "onnx deployed": ("cut.onnx", "deployed"),
}
_SUDDEN_DROP = 0.01
"""A layer is where two forms part when it alone costs this share of identical values."""
_MANY_SATURATED = 0.05
_ROUNDED_TWICE = {
    **{"conv": "CONV_2D or DEPTHWISE_CONV_2D", "linear": "FULLY_CONNECTED", "mul": "MUL", "add": "ADD"},
    **{"global_average_pool": "MEAN", "leaky_relu": "LEAKY_RELU"},
}
"""Reference kernels that scale by MultiplyByQuantizedMultiplier (tensorflow/lite/kernels/internal/common.h)."""


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """How far two forms are apart behind one layer: share of identical values, distances in the layer's own steps.

    `low` and `high` are the ends of the layer's grid; `saturated` is the share of the first form's values there.
    """

    layer: str
    kind: str
    identical: float
    max_abs_steps: int
    mean_steps: float
    low: float
    high: float
    saturated: float
    forms: tuple[str, ...] = ()

    def describe(self) -> str:
        """The layer, its range, how far the forms are apart, and what that looks like."""
        if "tflite reference" in self.forms and self.kind in _ROUNDED_TWICE:
            cause = (
                f"TFLite's reference {_ROUNDED_TWICE[self.kind]} rounds twice, first to the bits of its multiplier, so "
                "that sums just below a half are rounded up; no board runs it unless XNNPACK is off"
            )
        elif self.max_abs_steps <= 1:
            cause = "rounding of ties"
        elif self.saturated > _MANY_SATURATED:
            cause = f"{self.saturated:.0%} of its values saturate"
        else:
            cause = "another arithmetic in the kernel"
        return (
            f"{self.layer} ({self.kind}, range {self.low:.3g} to {self.high:.3g}): {self.identical:.1%} identical, "
            f"up to {self.max_abs_steps} steps apart; suspected: {cause}"
        )


def layer_differences(model: QuantizedModel, inputs: Array, first: Form, second: Form) -> Iterator[LayerDifference]:
    """The difference behind each layer, in execution order, over `inputs` (N, C, H, W) float32."""
    network = model.network()
    values = _torch_values(model, inputs) if "torch" in (first, second) else {}
    with tempfile.TemporaryDirectory(prefix="edgekd-divergence-") as scratch:
        for layer in network.layers:
            if not _can_end(network, layer):
                continue
            outputs = [
                values[layer.output]
                if form == "torch"
                else _run(network.until(layer.output), Path(scratch), form, inputs)
                for form in (first, second)
            ]
            yield replace(_difference(network, layer, *outputs), forms=(first, second))


def first_divergent_layer(differences: Iterator[LayerDifference]) -> LayerDifference | None:
    """The first layer at which the share of identical values drops by more than rounding passed on explains."""
    before = 1.0
    for difference in differences:
        if before - difference.identical > _SUDDEN_DROP:
            return difference
        before = min(before, difference.identical)
    return None


def _torch_values(model: QuantizedModel, inputs: Array) -> dict[str, Array]:
    torch = fit_module("torch")
    from edgekd.nn.evaluation import device_of, evaluating

    with torch.no_grad(), evaluating(model):
        found = model.activations(torch.from_numpy(inputs).to(device_of(model)))
    return {name: tensor.cpu().numpy() for name, tensor in found.items()}


def _can_end(network: Network, layer: Layer) -> bool:
    """A flattened image has another order of elements in each format, and is no place to compare."""
    return layer.kind not in ("reshape", "constant") and network.tensors[layer.output].grid is not None


def _run(network: Network, scratch: Path, form: Form, inputs: Array) -> Array:
    name, kernels = _FILES[form]
    write_network(network, scratch / name)
    outputs = run_model(scratch / name, inputs, kernels)
    return outputs.transpose(0, 3, 1, 2) if name.endswith(".tflite") and outputs.ndim == 4 else outputs


def _difference(network: Network, layer: Layer, first: Array, second: Array) -> LayerDifference:
    grid = network.tensors[layer.output].grid
    assert grid is not None
    steps = np.rint(first / grid.scale) - np.rint(second / grid.scale)
    stored = np.rint(first / grid.scale) + grid.zero_point
    return LayerDifference(
        layer=layer.name,
        kind=layer.kind,
        identical=float(np.mean(steps == 0)),
        max_abs_steps=int(np.abs(steps).max()),
        mean_steps=float(steps.mean()),
        low=(-128 - grid.zero_point) * grid.scale,
        high=(127 - grid.zero_point) * grid.scale,
        saturated=float(np.mean((stored <= -128) | (stored >= 127))),
    )
