"""Quantization, calibration first: what `edgekd fit` and `edgekd quantize` have in common.

A float model is calibrated (PTQ). Only where that loses too much, or where it is asked for, training with rounding
(QAT) goes on from there; the better of the two on the validation split is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.core.spread import evenly
from edgekd.nn.quantized.model import QuantizedModel, quantize_model
from edgekd.nn.quantized.noise import layer_damage, layer_noise
from edgekd.nn.quantized.post_training import ObserverChoice, PostTraining, post_training_quantize
from edgekd.nn.quantized.scheme import SCHEMES
from edgekd.pipeline.stages import Keeper, Made, TrainedModel
from edgekd.records import LayerReport, Qat, Quantization, QuantizationReport, QuantizationStep, Scheme
from edgekd.tasks import Development, Split, student_inputs
from edgekd.train.distill import train_quantized
from edgekd.train.examples import correct, examples_of, logits_of
from edgekd.train.loop import Progress, Trained

DEFAULT_DROP = 0.005
"""Accuracy that calibration alone may lose to fp32 on the validation split before QAT, where no budget says more."""
DECIDING_INPUTS = 1024
_BATCH = 64
_LAYER_INPUTS = 256
_TRAINABLE: tuple[Scheme, ...] = ("wi8_ai8", "wi8_ai8_mixed", "wi8_ai8_symmetric", "wi8_ai16", "wi8")


@dataclass(frozen=True, eq=False)
class FloatModel:
    """A trained float model and what it is quantized on. There is no test split here.

    Args:
        module: from inputs like `example` to logits (N, K).
        images: the same for inputs (N, C, H, W); differs from `module` where that takes signals (N, C, L).
        example: (1, ...) float32, as `module` takes it.
        data: the splits that decisions may read, at the task's own size.
        shape: (C, H, W) that the model takes.
        scheme: how weights and activations are to be stored.
        labelled: whether the labels are true ones; if not they are what `module` says.
        seed: of QAT.
        device: where to train and evaluate.
    """

    module: nn.Module
    images: nn.Module
    example: Tensor
    data: Development
    shape: tuple[int, int, int]
    scheme: Scheme
    labelled: bool
    seed: int
    device: torch.device

    def sample(self, inputs: np.ndarray, most: int) -> Tensor:
        """At most so many inputs, evenly spread over a split, as `module` takes them."""
        seen = student_inputs(inputs[evenly(len(inputs), most)], self.shape)
        values = torch.from_numpy(np.ascontiguousarray(seen))
        return values if self.example.dim() == 4 else values.squeeze(2)

    def right(self, model: nn.Module, split: Split) -> np.ndarray:
        """Whether a model for inputs (N, C, H, W) is right, per input of a split: (N,) bool."""
        examples = examples_of(split, self.shape)
        return correct(logits_of(model.to(self.device), examples.inputs, self.device), examples.labels).numpy()

    def validation_accuracy(self, model: nn.Module) -> float:
        """Share of the validation split that a model gets right."""
        return float(np.mean(self.right(model, self.data.validation)))


@dataclass(frozen=True)
class Allowance:
    """What calibration alone may lose before QAT: at most `limit` less than `reference`, both fractions.

    `of` says in words whose accuracy on the validation split `reference` is (None: the float model's own), `source`
    where the limit comes from.
    """

    reference: float | None = None
    limit: float = DEFAULT_DROP
    of: str = "fp32"
    source: str = "the default"


def calibrated(model: FloatModel, observer: ObserverChoice, batches: int) -> PostTraining:
    """Post-training quantization on so many batches of 64 training inputs.

    Held-back validation inputs, without their labels, choose between techniques.

    Raises:
        BuildError: an operator has no form in the scheme; it is named with its place.
    """
    seen = torch.split(model.sample(model.data.train.inputs, batches * _BATCH), _BATCH)
    held_back = model.sample(model.data.validation.inputs, DECIDING_INPUTS)
    return post_training_quantize(model.module, model.scheme, seen, held_back, observer)


def described(found: PostTraining) -> dict[str, Any]:
    """How calibration came about, for the report."""
    return {
        "observer": found.observer,
        "equalized": found.equalized,
        "bias_corrected": found.bias_corrected,
        "divergence_nats": found.divergence,
    }


def qat_wanted(
    wanted: Qat, scheme: Scheme, fp32_accuracy: float, ptq_accuracy: float, allowed: Allowance
) -> tuple[bool, str]:
    """Whether to train with rounding after calibration, and why, in words that follow "QAT "."""
    drop = (fp32_accuracy if allowed.reference is None else allowed.reference) - ptq_accuracy
    lost = (
        f"PTQ loses {100 * drop:.2f} points to {allowed.of} on the validation split, {100 * allowed.limit:g} are "
        f"allowed ({allowed.source})"
    )
    if wanted == "never":
        return False, "was not run: --qat never"
    if wanted == "auto" and drop <= allowed.limit:
        return False, f"was not run: {lost}"
    if scheme not in _TRAINABLE:
        return False, f"was not run: {scheme} rounds too little to train for"
    return True, "was run: " + ("--qat always" if wanted == "always" else lost)


def train_on(model: FloatModel, student: QuantizedModel, recipe: Quantization, on_progress: Progress) -> Trained:
    """Train a calibrated student in place, distilling from the float model (see `train_quantized`).

    Raises:
        BuildError: the loss is NaN or infinite.
    """
    logits = logits_of(model.images.to(model.device), examples_of(model.data.train, model.shape).inputs, model.device)
    return train_quantized(
        student,
        model.data,
        model.shape,
        recipe,
        seed=model.seed,
        device=model.device,
        on_progress=on_progress,
        float_logits=logits,
        labelled=model.labelled,
    )


def _layer_reports(student: QuantizedModel, inputs: Tensor) -> tuple[LayerReport, ...]:
    """Range, noise and saturation behind each layer over inputs (N, ...), in the order of execution.

    Empty for schemes that leave activations in float.
    """
    if SCHEMES[student.scheme].activation_bits is None:
        return ()
    found, damage = layer_noise(student.cpu(), inputs), layer_damage(student, inputs)
    return tuple(
        LayerReport(
            layer=entry.layer.split(":", 1)[-1],
            kind=entry.kind,
            damage_nats=damage[entry.layer],
            sqnr_db=entry.sqnr_db if np.isfinite(entry.sqnr_db) else None,
            low=entry.low,
            high=entry.high,
            saturated=entry.saturated,
        )
        for entry in found
    )


@dataclass(frozen=True, eq=False)
class Rounded:
    """The quantized model that was kept, with its record, and every step on the way to it."""

    model: QuantizedModel
    record: TrainedModel
    report: QuantizationReport
    steps: Mapping[str, nn.Module]
    """By name (`fp32`, `ptq`, `qat`, `mixed`): the step's model for inputs (N, C, H, W)."""


def quantize_float(
    model: FloatModel,
    keeper: Keeper,
    inputs: Mapping[str, Any],
    allowed: Allowance,
    recipe: Quantization,
    observer: ObserverChoice = "auto",
) -> Rounded:
    """Calibrate, train with rounding where that loses more than is allowed, and keep the better on validation.

    Args:
        model: what to quantize, and on what.
        keeper: keeps the stages `ptq` and `qat`.
        inputs: what the float model's weights depend on.
        allowed: what calibration may lose.
        recipe: of calibration and QAT, and whether QAT is wanted.
        observer: how ranges are read off.

    Raises:
        BuildError: an operator has no form in the scheme, or training diverged.
    """
    exact = model.validation_accuracy(model.images)

    def build() -> QuantizedModel:
        return quantize_model(model.module, model.example, model.scheme)

    def calibrate(student: QuantizedModel) -> Made:
        found = calibrated(model, observer, recipe.calibration_batches)
        student.load_state_dict(found.model.state_dict())
        student.eval()
        return Made(None, model.validation_accuracy(student), detail=described(found))

    keeper.progress.stage("ptq", f"{model.scheme}, {observer} observer")
    inputs = {**inputs, "scheme": model.scheme, "observer": observer, "batches": recipe.calibration_batches}
    calibrated_model, ptq = keeper.model("ptq", inputs, build, calibrate)
    ptq_accuracy = _accuracy(ptq)
    train, reason = qat_wanted(recipe.qat, model.scheme, exact, ptq_accuracy, allowed)
    steps: dict[str, nn.Module] = {"fp32": model.images, "ptq": calibrated_model}
    qat: TrainedModel | None = None
    if train:
        keeper.progress.stage("qat", reason)

        def learn(student: QuantizedModel) -> Made:
            student.load_state_dict(calibrated_model.state_dict())
            trained = train_on(model, student, recipe, keeper.progress.update)
            # Counted as for PTQ, after the last ranges settled, so that equal shares compare as equal.
            return Made(trained, model.validation_accuracy(student), detail={"ranges": recipe.steps})

        taught = {"training": recipe.training, "freeze": recipe.freeze_fraction, "steps": recipe.steps}
        steps["qat"], qat = keeper.model("qat", {**inputs, "ptq": ptq.weights_sha256, **taught}, build, learn)
    chosen = "qat" if qat is not None and _accuracy(qat) > ptq_accuracy else "ptq"
    kept = steps[chosen]
    assert isinstance(kept, QuantizedModel)
    report = QuantizationReport(
        scheme=kept.scheme,
        fp32=QuantizationStep(validation_accuracy=exact, seconds=0.0, cpu_seconds=0.0),
        ptq=_step(ptq),
        qat=None if qat is None else _step(qat),
        qat_reason=reason,
        chosen="qat" if chosen == "qat" else "ptq",
        layers=_layer_reports(kept, model.sample(model.data.validation.inputs, _LAYER_INPUTS)),
        float_operators=kept.float_places,
    )
    return Rounded(kept, qat if qat is not None and chosen == "qat" else ptq, report, steps)


def _accuracy(record: TrainedModel) -> float:
    assert record.validation_accuracy is not None
    return record.validation_accuracy


def _step(record: TrainedModel) -> QuantizationStep:
    detail = record.detail
    if record.epochs:
        detail = {**detail, "epochs": record.epochs, "steps": record.steps, "best_epoch": record.best_epoch}
    return QuantizationStep(
        validation_accuracy=_accuracy(record), seconds=record.wall_s, cpu_seconds=record.cpu_s, detail=detail
    )
