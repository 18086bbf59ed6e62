"""`edgekd quantize`: a torch module to int8 files, by calibration, and by training only where that falls short."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.convert.inference import run_model
from edgekd.convert.parity import LEAST_AGREEMENT, check_parity
from edgekd.convert.students import FileKey, convert_student
from edgekd.core.spread import evenly
from edgekd.core.verdicts import MEASURED_ONLY, exit_code, judge
from edgekd.errors import EXIT_MET
from edgekd.nn.quantized.model import QuantizedModel, quantize_model
from edgekd.nn.quantized.noise import layer_damage, layer_noise
from edgekd.nn.quantized.post_training import ObserverChoice, PostTraining, post_training_quantize
from edgekd.nn.quantized.scheme import SCHEMES
from edgekd.pipeline.console import Progress
from edgekd.pipeline.evaluation import PARITY_INPUTS, SHIPPED_INPUTS
from edgekd.pipeline.quantize_result import LayerReport, Quantized, Step
from edgekd.pipeline.stages import cpu_seconds
from edgekd.pipeline.user_model import CalibrationData, as_images, load_calibration, load_user_model
from edgekd.records import (
    Accuracy,
    Artifact,
    Budget,
    Hard,
    Hinton,
    Parity,
    Quantization,
    Scheme,
    Training,
    Verdict,
)
from edgekd.store import write_text
from edgekd.store.places import require_free
from edgekd.tasks import Development, Split
from edgekd.train.distill import train_model
from edgekd.train.examples import correct, examples_of, logits_of, resolve_device

Qat = Literal["auto", "always", "never"]
DEFAULT_DROP = 0.01
"""Accuracy that calibration alone may lose on the validation split before `--qat auto` trains."""
CALIBRATION_INPUTS = 1024
DECIDING_INPUTS = 1024
_BATCH = 64
_LAYER_INPUTS = 256
_TRAINABLE: tuple[Scheme, ...] = ("wi8_ai8", "wi8_ai8_symmetric", "wi8_ai16", "wi8")
RESULT_FILE = "quantize.json"


@dataclass(frozen=True)
class QuantizeOptions:
    """What the command line says. `accuracy_drop_max` None: nothing is judged, and QAT starts beyond 0.01."""

    scheme: Scheme = "wi8_ai8"
    qat: Qat = "auto"
    observer: ObserverChoice = "auto"
    accuracy_drop_max: float | None = None
    epochs: int | None = None
    seed: int = 0
    device: str = "auto"


def quantize(
    reference: str, weights: Path | None, calibration: str, out: Path, options: QuantizeOptions, progress: Progress
) -> Quantized:
    """Quantize a user's module and write its files, with their report, to the folder `out`.

    Args:
        reference: `MODEL.py:factory`.
        weights: a torch state dict, or None where the factory gives the module trained.
        calibration: a task's name or file, or a folder of arrays.
        out: a folder that is empty or not there.
        options: the rest.
        progress: told what happens.

    Raises:
        ConfigurationError: the model, weights, data or output cannot be used.
        BuildError: an operator has no form in the scheme (named with its place in the user's module), training
            diverged, a converter failed, a file is not what its scheme says, or the forms disagree.
    """
    require_free(out)
    progress.stage("model", reference)
    model = load_user_model(reference, weights)
    progress.stage("data", calibration)
    data = load_calibration(calibration, model)
    work = _Work(model, data, options, progress)
    # What has no form is refused before anything takes time.
    quantize_model(model, work.example, options.scheme)
    fp32 = work.float_step()
    found, ptq = work.calibrated()
    trained, qat, reason = work.trained(found, fp32, ptq)
    better = trained is not None and qat is not None and qat.validation_accuracy > ptq.validation_accuracy
    chosen: Literal["ptq", "qat"] = "qat" if better else "ptq"
    final = trained if trained is not None and better else found.model
    progress.stage("convert", options.scheme)
    out.mkdir(parents=True, exist_ok=True)
    artifacts = convert_student(model, final, work.example, out, _names(options.scheme))
    progress.stage("parity", "the files against the fake-quantized module")
    agreement = work.parity(final, out, artifacts)
    right = work.file_correct(out, artifacts)
    verdict = work.verdict(right)
    result = Quantized(
        model=reference,
        scheme=options.scheme,
        out=str(out),
        metric="accuracy" if data.labelled else "agreement with fp32",
        test_inputs=len(data.test),
        fp32=fp32,
        ptq=ptq,
        qat=qat,
        qat_reason=reason,
        chosen=chosen,
        file_accuracy=float(np.mean(right)),
        artifacts=tuple(artifacts),
        parity=agreement,
        layers=work.layers(final),
        verdict=verdict,
        exit_code=EXIT_MET if verdict is None else exit_code([verdict]),
    )
    write_text(out / RESULT_FILE, result.model_dump_json(indent=2) + "\n")
    return result


class _Work:
    """One quantization: what its steps share."""

    def __init__(self, model: nn.Module, data: CalibrationData, options: QuantizeOptions, progress: Progress) -> None:
        self.user, self.options, self.progress = model, options, progress
        self.device = resolve_device(options.device)
        self.float_model = as_images(model, data.development.train.inputs)
        self.development, self.test = data.development, data.test
        self.labelled = data.labelled
        if not data.labelled:
            self._answer_by_float_model()
        shape = data.development.train.inputs.shape[1:]
        self.shape = (int(shape[0]), int(shape[1]), int(shape[2]))
        example = torch.from_numpy(data.development.train.inputs[:1])
        self.example: Tensor = example if self.float_model is model else example.squeeze(2)

    def _answer_by_float_model(self) -> None:
        def answered(split: Split) -> Split:
            inputs = torch.from_numpy(np.ascontiguousarray(split.inputs))
            labels = logits_of(self.float_model, inputs, torch.device("cpu")).argmax(1).numpy()
            return Split(split.inputs, labels)

        self.development = Development(answered(self.development.train), answered(self.development.validation))
        self.test = answered(self.test)

    def float_step(self) -> Step:
        """What the module gets right as it is."""
        self.progress.stage("fp32", f"{len(self.test)} test inputs")
        return self._step(self.float_model, {})

    def calibrated(self) -> tuple[PostTraining, Step]:
        """Post-training quantization."""
        self.progress.stage("ptq", f"{self.options.scheme}, {self.options.observer} observer")
        started = time.perf_counter(), cpu_seconds()
        train, validation = self.development.train.inputs, self.development.validation.inputs
        batches = torch.split(self._sample(train, CALIBRATION_INPUTS), _BATCH)
        found = post_training_quantize(
            self.user, self.options.scheme, batches, self._sample(validation, DECIDING_INPUTS), self.options.observer
        )
        detail = {
            "observer": found.observer,
            "equalized": found.equalized,
            "bias_corrected": found.bias_corrected,
            "divergence_nats": found.divergence,
        }
        return found, self._step(found.model, detail, started)

    def _sample(self, inputs: np.ndarray, most: int) -> Tensor:
        rows = np.ascontiguousarray(inputs[evenly(len(inputs), most)])
        values = torch.from_numpy(rows)
        return values if self.example.dim() == 4 else values.squeeze(2)

    def trained(self, found: PostTraining, fp32: Step, ptq: Step) -> tuple[QuantizedModel | None, Step | None, str]:
        """Quantization-aware training where it is wanted, distilling from the float module."""
        limit = self.options.accuracy_drop_max if self.options.accuracy_drop_max is not None else DEFAULT_DROP
        drop = fp32.validation_accuracy - ptq.validation_accuracy
        lost = f"PTQ loses {drop:.4f} on the validation split, the most allowed is {limit:g}"
        if self.options.qat == "never" or (self.options.qat == "auto" and drop <= limit):
            return None, None, f"not trained: {'--qat never' if self.options.qat == 'never' else lost}"
        if self.options.scheme not in _TRAINABLE:
            return None, None, f"not trained: {self.options.scheme} rounds too little to train for"
        reason = "trained: " + ("--qat always" if self.options.qat == "always" else lost)
        self.progress.stage("qat", reason)
        started = time.perf_counter(), cpu_seconds()
        model = quantize_model(self.user, self.example, self.options.scheme)
        model.load_state_dict(found.model.state_dict())
        recipe, schedule = Quantization(), self._schedule()
        train = self.development.train
        teacher = logits_of(self.float_model, examples_of(train, self.shape).inputs, self.device)
        result = train_model(
            model,
            self.development,
            self.shape,
            (Hard(weight=0.3), Hinton(weight=0.7, temperature=3.0)) if self.labelled else (Hinton(weight=1.0),),
            schedule,
            seed=self.options.seed,
            device=self.device,
            title="QAT",
            on_progress=self.progress.update,
            teacher_logits=teacher,
            before_step=lambda step, planned: model.observe(step < recipe.freeze_fraction * planned),
            may_keep_start=True,
        )
        model.freeze()
        model.cpu().eval()
        detail = {"epochs": result.epochs, "steps": result.steps, "best_epoch": result.best_epoch + 1}
        return model, self._step(model, detail, started), reason

    def _schedule(self) -> Training:
        schedule = Quantization().training
        epochs = self.options.epochs
        return schedule if epochs is None else schedule.model_copy(update={"epochs": epochs, "patience": epochs})

    def _step(self, model: nn.Module, detail: dict[str, Any], started: tuple[float, float] | None = None) -> Step:
        wall, cpu = started or (time.perf_counter(), cpu_seconds())
        seconds, used = time.perf_counter() - wall, cpu_seconds() - cpu
        return Step(
            accuracy=float(np.mean(self._right(model, self.test))),
            validation_accuracy=float(np.mean(self._right(model, self.development.validation))),
            seconds=seconds if started else 0.0,
            cpu_seconds=used if started else 0.0,
            detail=detail,
        )

    def _right(self, model: nn.Module, split: Split) -> np.ndarray:
        examples = examples_of(split, self.shape)
        return correct(logits_of(model.to(self.device), examples.inputs, self.device), examples.labels).numpy()

    def parity(self, model: QuantizedModel, out: Path, artifacts: list[Artifact]) -> tuple[Parity, ...]:
        """The gated rungs of `wi8_ai8`; other schemes promise no such agreement."""
        paths = {artifact.format: out / artifact.path for artifact in artifacts if artifact.scheme == model.scheme}
        if model.scheme != "wi8_ai8":
            self.progress.update(f"{model.scheme} promises no agreement of {LEAST_AGREEMENT:.0%}: not compared")
            return ()
        inputs = self.development.validation.inputs
        return check_parity(model.cpu(), paths["tflite"], paths["onnx"], inputs[evenly(len(inputs), PARITY_INPUTS)])

    def _test_rows(self) -> list[int]:
        return evenly(len(self.test), SHIPPED_INPUTS)

    def file_correct(self, out: Path, artifacts: list[Artifact]) -> np.ndarray:
        """Per test input, whether the deployed file is right."""
        quantized = [artifact for artifact in artifacts if artifact.scheme == self.options.scheme]
        first = min(quantized, key=lambda artifact: artifact.format != "tflite")
        rows = self._test_rows()
        found: np.ndarray = run_model(out / first.path, self.test.inputs[rows]).argmax(1) == self.test.labels[rows]
        return found

    def verdict(self, right: np.ndarray) -> Verdict | None:
        """Whether the file loses no more than was allowed, on the test split; None where nothing was asked."""
        if self.options.accuracy_drop_max is None:
            return None
        float_right = self._right(self.float_model, self.test)[self._test_rows()]
        accuracy = Accuracy(
            teacher=float(np.mean(float_right)),
            student_int8=float(np.mean(right)),
            inputs=len(right),
            teacher_correct=tuple(float_right.tolist()),
            student_int8_correct=tuple(right.tolist()),
        )
        (verdict,) = judge(
            Budget(accuracy_drop_max=self.options.accuracy_drop_max),
            measurement=None,
            predicted={},
            accuracy=accuracy,
            file_size_bytes=None,
            profile_matches=False,
            basis_allowed=MEASURED_ONLY,
        )
        return verdict

    def layers(self, model: QuantizedModel) -> tuple[LayerReport, ...]:
        """Where accuracy went, the most damaging layer first."""
        if SCHEMES[model.scheme].activation_bits is None:
            return ()
        inputs = self._sample(self.development.validation.inputs, _LAYER_INPUTS)
        found, damage = layer_noise(model.cpu(), inputs), layer_damage(model, inputs)
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
            for entry in sorted(found, key=lambda entry: -damage[entry.layer])
        )


def _names(scheme: Scheme) -> dict[FileKey, str]:
    names: dict[FileKey, str] = {}
    for file_format in ("tflite", "onnx"):
        for wanted in dict.fromkeys((scheme, "fp32")):
            if not (wanted == "wi8_ai8_symmetric" and file_format == "tflite"):
                names[file_format, wanted] = f"model_{wanted}.{file_format}"
    return names
