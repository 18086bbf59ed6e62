"""Where two forms of one network part: the network cut off behind each layer, run in both, compared."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edgekd.convert.inference import Kernels, run_model
from edgekd.convert.isolated import write_network
from edgekd.nn.quantized.network import Array, Layer, Network

Form = Literal["tflite", "tflite reference", "onnx exact", "onnx deployed"]
_FORMS: dict[Form, tuple[str, Kernels]] = {
    "tflite": ("cut.tflite", "deployed"),
    "tflite reference": ("cut.tflite", "reference"),
    "onnx exact": ("cut.onnx", "exact"),
    "onnx deployed": ("cut.onnx", "deployed"),
}
_SUDDEN_DROP = 0.01
"""A layer is where two forms part when it alone costs this share of identical values."""


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """How far two forms are apart behind one layer: share of identical values, distances in the layer's own steps."""

    layer: str
    kind: str
    identical: float
    max_abs_steps: int
    mean_steps: float
    scale: float
    saturated: float
    """Share of values at an end of the grid, in the first form."""


def layer_differences(network: Network, inputs: Array, first: Form, second: Form) -> Iterator[LayerDifference]:
    """The difference behind each layer, in execution order, over `inputs` (N, C, H, W) float32."""
    with tempfile.TemporaryDirectory(prefix="edgekd-divergence-") as scratch:
        for layer in network.layers:
            if not _can_end(network, layer):
                continue
            cut = network.until(layer.output)
            outputs = [_run(cut, Path(scratch), form, inputs) for form in (first, second)]
            yield _difference(cut, layer, *outputs)


def first_divergent_layer(differences: list[LayerDifference]) -> LayerDifference | None:
    """The first layer at which the share of identical values drops by more than rounding passed on explains."""
    before = 1.0
    for difference in differences:
        if before - difference.identical > _SUDDEN_DROP:
            return difference
        before = min(before, difference.identical)
    return None


def _can_end(network: Network, layer: Layer) -> bool:
    """A flattened image has another order of elements in each format, and is no place to compare."""
    return layer.kind != "reshape" and network.tensors[layer.output].grid is not None


def _run(network: Network, scratch: Path, form: Form, inputs: Array) -> Array:
    name, kernels = _FORMS[form]
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
        scale=grid.scale,
        saturated=float(np.mean((stored <= -128) | (stored >= 127))),
    )
