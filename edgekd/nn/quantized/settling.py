"""Scales nudged to where every runtime computes alike, once ranges are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.nn.quantized.layers.nonlinear import LeakyRelu
from edgekd.nn.quantized.multipliers import alike_output_scale
from edgekd.nn.quantized.network import CEILINGS
from edgekd.nn.quantized.ties import leaky_steps, untied_scale

if TYPE_CHECKING:
    from edgekd.nn.quantized.islands import Step
    from edgekd.nn.quantized.model import QuantizedModel
    from edgekd.nn.quantized.quantizer import ActivationQuantizer


def settle_scales(model: QuantizedModel) -> None:
    """Nudge, in place, int8 scales of sums and products, and those before leaky ReLUs with the slopes; see `ties`."""
    for step in model.steps:
        quantizer, layer = model.quantizer(step.key), model.layer(step)
        if step.key in model.float_steps or quantizer is None or quantizer.fixed or not quantizer.is_set:
            continue
        if layer.kind == "add":
            _settle_sum(model, step, quantizer)
        elif layer.kind == "mul":
            _settle_product(model, step, quantizer)
        elif isinstance(layer, LeakyRelu):
            _settle_leaky_relu(model, step, layer, quantizer)


def _settle_sum(model: QuantizedModel, step: Step, quantizer: ActivationQuantizer) -> None:
    first, second = (model.grid(name) for name in step.inputs)
    if first is not None and second is not None:
        shrink = quantizer.activation in CEILINGS
        quantizer.scale.fill_(untied_scale(first, second, quantizer.grid(), shrink))


def _settle_product(model: QuantizedModel, step: Step, quantizer: ActivationQuantizer) -> None:
    first, second = (model.grid(name) for name in step.inputs)
    if first is not None and second is not None:
        shrink = quantizer.activation in CEILINGS
        unit = first.scale * second.scale
        quantizer.scale.fill_(alike_output_scale(unit, float(quantizer.scale), shrink))


def _settle_leaky_relu(model: QuantizedModel, step: Step, layer: LeakyRelu, quantizer: ActivationQuantizer) -> None:
    (name,) = step.inputs
    source = model.quantizer(name)
    alone = len(model.islands.readers[name]) == 1 and model.has_own_grid(name)
    if source is None or source.fixed or not alone:
        return
    scale, slope = leaky_steps(float(source.scale), float(quantizer.scale), layer.attributes["slope"])
    source.scale.fill_(scale)
    layer.slope.fill_(slope)
