"""Mixed precision in `edgekd quantize`: after calibration and training, the worst layers are kept in float."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from edgekd.nn.quantized.mixed import Addition, keep_worst_in_float
from edgekd.nn.quantized.model import QuantizedModel
from edgekd.pipeline.console import Progress
from edgekd.pipeline.quantization.quantizing import DEFAULT_DROP, FloatModel, Rounded
from edgekd.pipeline.quantization.result import KeptInFloat, MixedReport
from edgekd.pipeline.stages import cpu_seconds
from edgekd.records import QuantizationStep

_RANKING_INPUTS = 512


@dataclass(frozen=True, eq=False)
class MixedStep:
    """The model that mixed precision leaves, and its report. `step` is None where nothing had to be kept in float."""

    model: QuantizedModel
    report: MixedReport
    step: QuantizationStep | None = None


def mix(model: FloatModel, rounded: Rounded, accuracy_drop_max: float | None, progress: Progress) -> MixedStep:
    """Keep the worst layers in float until the validation split loses no more than is allowed.

    Args:
        model: the float model with its data.
        rounded: what calibration and training left.
        accuracy_drop_max: most accuracy lost to fp32, a fraction; None is `DEFAULT_DROP`.
        progress: told what happens.

    Raises:
        BuildError: the scheme is not `wi8_ai8`.
    """
    limit = DEFAULT_DROP if accuracy_drop_max is None else accuracy_drop_max
    report = rounded.report
    best = report.ptq if report.chosen == "ptq" or report.qat is None else report.qat
    exact, reached = report.fp32.validation_accuracy, best.validation_accuracy
    lost = f"int8 loses {100 * (exact - reached):.2f} points on the validation split, {100 * limit:g} are allowed"
    if reached >= exact - limit:
        return MixedStep(rounded.model, MixedReport(reason=f"not needed: {lost}"))
    progress.stage("mixed", lost)
    started, used = time.perf_counter(), cpu_seconds()
    inputs = model.sample(model.data.validation.inputs, _RANKING_INPUTS)

    def accuracy(trial: QuantizedModel) -> float:
        return float(np.mean(model.right(trial, model.data.validation)))

    found = keep_worst_in_float(rounded.model.cpu(), inputs, accuracy, exact - limit)
    places = {step.key: step.place for step in found.model.steps}
    kinds = {step.key: found.model.layer(step).kind for step in found.model.steps}
    kept = tuple(_kept(addition, places, kinds) for addition in found.additions)
    step = QuantizationStep(
        validation_accuracy=found.accuracy,
        seconds=time.perf_counter() - started,
        cpu_seconds=cpu_seconds() - used,
        detail={"layers_in_float": len(found.model.float_steps), "layers": len(found.model.steps)},
    )
    outcome = "held" if found.holds else "still missed"
    reason = f"was run: {lost}; {outcome} with {sum(len(entry.layers) for entry in kept)} layers in float"
    return MixedStep(found.model.eval(), MixedReport(reason=reason, kept=kept), step if kept else None)


def _kept(addition: Addition, places: dict[str, str], kinds: dict[str, str]) -> KeptInFloat:
    return KeptInFloat(
        layers=tuple(f"{places[key]} ({kinds[key]})" for key in addition.steps),
        damage_nats=addition.damage,
        divergence_before_nats=addition.divergence_before,
        divergence_nats=addition.divergence,
        validation_accuracy_before=addition.accuracy_before,
        validation_accuracy=addition.accuracy,
        more_bytes=addition.more_bytes,
    )
