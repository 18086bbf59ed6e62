"""Mixed precision: where calibration and training still lose too much, the worst layers are kept in float."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgekd.nn.quantized.mixed import Addition, Mixed, keep_worst_in_float
from edgekd.nn.quantized.model import QuantizedModel
from edgekd.pipeline.quantization.quantizing import Allowance, FloatModel, Rounded
from edgekd.pipeline.stages import Keeper, cpu_seconds
from edgekd.records import KeptInFloat, LayerReport, MixedReport, QuantizationReport, QuantizationStep

_RANKING_INPUTS = 512


def mix(model: FloatModel, rounded: Rounded, allowed: Allowance, keeper: Keeper) -> Rounded:
    """Keep the worst layers in float until the validation split loses no more than is allowed.

    Args:
        model: the float model with its data.
        rounded: what calibration and training left.
        allowed: what may be lost, and to what.
        keeper: keeps the stage `mixed`.

    Returns:
        The same, with a step `mixed` where layers were kept, and in either case with the reason in the report.

    Raises:
        BuildError: the scheme is not `wi8_ai8`.
    """
    best = _accuracy(rounded.report)
    exact = rounded.report.fp32.validation_accuracy
    wanted = (exact if allowed.reference is None else allowed.reference) - allowed.limit
    lost = (
        f"{rounded.report.chosen.upper()} loses {100 * (wanted + allowed.limit - best):.2f} points to {allowed.of} on "
        f"the validation split, {100 * allowed.limit:g} are allowed ({allowed.source})"
    )
    if best >= wanted:
        return _with_report(rounded, MixedReport(reason=f"not needed: {lost}", holds=True))
    if exact < wanted:
        short = 100 * (wanted + allowed.limit - exact)
        reason = f"was not run: {lost}, and fp32 itself loses {short:.2f}: no layer in float can make up for that"
        return _with_report(rounded, MixedReport(reason=reason, holds=False))
    keeper.progress.stage("mixed", lost)

    def search() -> MixedReport:
        return _searched(model, rounded.model, best, wanted, lost)

    inputs = {"rounded": rounded.record.weights_sha256, "scheme": model.scheme, "wanted": wanted, "lost": lost}
    report = keeper.record("mixed", inputs, MixedReport, search)
    keeper.progress.update(f"mixed precision {report.reason}")
    if not report.kept:
        return _with_report(rounded, report)
    final = copy.deepcopy(rounded.model)
    final.keep_float(report.float_steps)
    mixed = replace(rounded, model=final.eval(), steps={**rounded.steps, "mixed": final})
    return _with_report(mixed, report)


def mixing_may_help(report: QuantizationReport, allowed: Allowance) -> bool:
    """Whether rounding loses more than is allowed on the validation split, and fp32 does not."""
    exact = report.fp32.validation_accuracy
    wanted = (exact if allowed.reference is None else allowed.reference) - allowed.limit
    return _accuracy(report) < wanted <= exact


def _accuracy(report: QuantizationReport) -> float:
    best = report.ptq if report.chosen == "ptq" or report.qat is None else report.qat
    return best.validation_accuracy


def _searched(model: FloatModel, start: QuantizedModel, best: float, wanted: float, lost: str) -> MixedReport:
    started, used = time.perf_counter(), cpu_seconds()
    inputs = model.sample(model.data.validation.inputs, _RANKING_INPUTS)

    def accuracy(trial: QuantizedModel) -> float:
        return float(np.mean(model.right(trial, model.data.validation)))

    found = keep_worst_in_float(start.cpu(), inputs, accuracy, wanted)
    if not found.holds and found.accuracy <= best:
        tried = len(found.model.float_steps - start.float_steps)
        reason = f"was run: {lost}; {_layers(tried)} in float are no better on the validation split: none is kept"
        return MixedReport(reason=reason, holds=False)
    kept = tuple(_kept(addition, found.model) for addition in found.additions)
    count = sum(len(entry.layers) for entry in kept)
    outcome = "held" if found.holds else "still missed"
    return MixedReport(
        reason=f"was run: {lost}; {outcome} with {_layers(count)} in float",
        holds=found.holds,
        kept=kept,
        step=_step(found, time.perf_counter() - started, cpu_seconds() - used) if kept else None,
        float_steps=tuple(step.key for step in found.model.steps if step.key in found.model.float_steps),
    )


def _layers(count: int) -> str:
    return f"{count} layer{'' if count == 1 else 's'}"


def _step(found: Mixed, seconds: float, used: float) -> QuantizationStep:
    detail = {"layers_in_float": len(found.model.float_steps), "layers": len(found.model.steps)}
    return QuantizationStep(validation_accuracy=found.accuracy, seconds=seconds, cpu_seconds=used, detail=detail)


def _kept(addition: Addition, model: QuantizedModel) -> KeptInFloat:
    names = {step.key: f"{step.place} ({model.layer(step).kind})" for step in model.steps}
    return KeptInFloat(
        layers=tuple(names[key] for key in addition.steps),
        damage_nats=addition.damage,
        divergence_before_nats=addition.divergence_before,
        divergence_nats=addition.divergence,
        validation_accuracy_before=addition.accuracy_before,
        validation_accuracy=addition.accuracy,
        more_bytes=addition.more_bytes,
    )


def _with_report(rounded: Rounded, mixed: MixedReport) -> Rounded:
    layers = _marked(rounded.report.layers, rounded.model)
    update = {"mixed": mixed, "scheme": rounded.model.scheme, "layers": layers}
    return replace(rounded, report=rounded.report.model_copy(update=update))


def _marked(layers: Sequence[LayerReport], model: QuantizedModel) -> tuple[LayerReport, ...]:
    """The layers, those marked that compute in float now."""
    return tuple(
        layer.model_copy(update={"in_float": True}) if f"{layer.layer} ({layer.kind})" in model.float_places else layer
        for layer in layers
    )
