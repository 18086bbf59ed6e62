"""Pruning ahead of quantization: fewer channels, trained to answer as the module did before, and refused if useless."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.convert.random_student import write_random_student
from edgekd.errors import BuildError, ConfigurationError
from edgekd.nn.pruning import Pruned, prune
from edgekd.pipeline.console import Progress
from edgekd.pipeline.files.predict import predict_file
from edgekd.pipeline.quantization.pruning_result import PruningReport, Worth
from edgekd.pipeline.quantization.relative_latency import latency_ratio
from edgekd.pipeline.quantization.user_model import CalibrationData, answered_by, as_images
from edgekd.records import Hinton, Scheme, Training
from edgekd.tasks import Development
from edgekd.train.distill import QAT_OBJECTIVES, train_model
from edgekd.train.examples import correct, examples_of, logits_of, resolve_device
from edgekd.train.loop import Trained

SCHEDULE = Training(epochs=10, learning_rate=1e-3, warmup_fraction=0.0, patience=10, ema_decay=0.0)
"""Of the training that follows: the weights that are left are good ones, so it starts low."""


@dataclass(frozen=True)
class PruneOptions:
    """What the command line says of pruning. `profile` None: only this machine's latency must fall."""

    share: float
    profile: str | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ConfigurationError(f"--prune {self.share:g} is no share of the parameters: between 0 and 1, as 0.5")


def prune_and_train(
    model: nn.Module,
    data: CalibrationData,
    scheme: Scheme,
    options: PruneOptions,
    *,
    seed: int,
    device: str,
    progress: Progress,
) -> tuple[nn.Module, PruningReport]:
    """A smaller module that was trained to answer as `model` does, and what that saved.

    Raises:
        BuildError: so much cannot be taken out, the file would not be smaller, or inference not faster: nothing is
            trained then, and the message has the figures.
        ConfigurationError: no such profile.
        MissingExtraError: torch-pruning is not installed.
    """
    inputs = data.development.train.inputs
    images = as_images(model, inputs)
    first = torch.from_numpy(np.ascontiguousarray(inputs[:1]))
    example = first if images is model else first.squeeze(2)
    progress.stage("prune", f"{options.share:.0%} of the parameters")
    pruned = prune(model, example, options.share)
    worth = _worth(model, pruned, example, scheme, options.profile, progress)
    refuse_if_useless(worth, options.share)
    progress.stage("train", f"{pruned.parameters} of {pruned.parameters_before} parameters, taught by the whole module")
    epochs = options.epochs or SCHEDULE.epochs
    schedule = SCHEDULE.model_copy(update={"epochs": epochs, "patience": epochs})
    pupil = _Pupil(as_images(pruned.model, inputs), images, data, resolve_device(device))
    before, cut = pupil.accuracy(images), pupil.accuracy(pupil.module)
    trained = pupil.train(schedule, seed, progress)
    model.cpu()
    report = PruningReport(
        share=options.share,
        parameters_before=pruned.parameters_before,
        parameters=pruned.parameters,
        left_alone=pruned.left_alone,
        worth=worth,
        accuracy_before=before,
        accuracy_cut=cut,
        accuracy=trained.validation_accuracy,
        epochs=trained.epochs,
    )
    return pruned.model.cpu().eval(), report


class _Pupil:
    """A pruned module for inputs (N, C, H, W), what the whole one teaches it, and on what."""

    def __init__(self, module: nn.Module, whole: nn.Module, data: CalibrationData, device: torch.device) -> None:
        self.module, self.whole, self.device, self.labelled = module, whole, device, data.labelled
        self.data = data.development
        if not data.labelled:
            self.data = Development(answered_by(whole, self.data.train), answered_by(whole, self.data.validation))
        channels, height, width = self.data.train.inputs.shape[1:]
        self.shape = (int(channels), int(height), int(width))

    def accuracy(self, module: nn.Module) -> float:
        """Share of the validation split that a module gets right."""
        examples = examples_of(self.data.validation, self.shape)
        logits = logits_of(module.to(self.device), examples.inputs, self.device)
        return float(correct(logits, examples.labels).float().mean())

    def train(self, schedule: Training, seed: int, progress: Progress) -> Trained:
        """Train the pruned module in place."""
        logits = logits_of(self.whole, examples_of(self.data.train, self.shape).inputs, self.device)
        return train_model(
            self.module,
            self.data,
            self.shape,
            QAT_OBJECTIVES if self.labelled else (Hinton(weight=1.0),),
            schedule,
            seed=seed,
            device=self.device,
            title="the pruned module",
            on_progress=progress.update,
            teacher_logits=logits,
        )


def _worth(
    model: nn.Module, pruned: Pruned, example: Tensor, scheme: Scheme, profile: str | None, progress: Progress
) -> Worth:
    """Files of both with the same operators as the trained ones will have: their weights do not matter for it."""
    suffix = "onnx" if scheme == "wi8_ai8_symmetric" else "tflite"
    with tempfile.TemporaryDirectory(prefix="edgekd-prune-") as folder:
        before, after = Path(folder, f"before.{suffix}"), Path(folder, f"after.{suffix}")
        write_random_student(model, example, before, scheme)
        write_random_student(pruned.model, example, after, scheme)
        predicted: tuple[float | None, ...] = (None, None)
        if profile is not None:
            predictions = [predict_file(path, profile) for path in (before, after)]
            predicted = tuple(prediction.latency_ms for prediction in predictions)
            if None in predicted:
                progress.warn(f"{profile} has no latency model for {scheme} .{suffix}: only this machine is asked")
        return Worth(
            file_bytes_before=before.stat().st_size,
            file_bytes=after.stat().st_size,
            latency_ratio=latency_ratio(before, after),
            profile=profile,
            predicted_ms_before=predicted[0],
            predicted_ms=predicted[1],
        )


def refuse_if_useless(worth: Worth, share: float) -> None:
    """Pruning has to pay: a smaller file, less latency measured here, and less predicted where that was asked.

    Raises:
        BuildError: it does not; the message has the figures.
    """
    failed = []
    if worth.file_bytes >= worth.file_bytes_before:
        failed.append(f"the file does not shrink ({worth.file_bytes_before} to {worth.file_bytes} bytes)")
    ratio = worth.latency_ratio
    if ratio.high >= 1.0:
        failed.append(
            f"latency on this machine does not surely fall (to {ratio.value:.1%}, 95 % interval {ratio.low:.1%} to "
            f"{ratio.high:.1%})"
        )
    predicted = (worth.predicted_ms_before, worth.predicted_ms)
    if predicted[0] is not None and predicted[1] is not None and predicted[1] >= predicted[0]:
        failed.append(
            f"the latency predicted on {worth.profile} does not fall ({predicted[0]:.3g} to {predicted[1]:.3g} ms)"
        )
    if failed:
        raise BuildError(f"pruning {share:.0%} of the parameters is refused: {'; '.join(failed)}")
