"""`edgekd quantize`: a torch module to int8 files, by calibration, and by training only where that falls short."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from edgekd.convert.distances import COMPARED_INPUTS, file_distance, require_float_alike
from edgekd.convert.inference import run_model
from edgekd.convert.parity import check_parity, torch_logits
from edgekd.convert.students import FileKey, convert_student
from edgekd.core.spread import evenly
from edgekd.core.verdicts import MEASURED_ONLY, exit_code, judge
from edgekd.errors import EXIT_MET
from edgekd.nn.quantized.model import QuantizedModel, quantize_model
from edgekd.nn.quantized.post_training import ObserverChoice
from edgekd.pipeline.console import Progress
from edgekd.pipeline.fitting.evaluation import PARITY_INPUTS, SHIPPED_INPUTS
from edgekd.pipeline.quantization.mixed import mix
from edgekd.pipeline.quantization.options import lowered_scheme, require_consistent
from edgekd.pipeline.quantization.pruning import PruneOptions, prune_and_train
from edgekd.pipeline.quantization.pruning_result import PruningReport
from edgekd.pipeline.quantization.quantizing import Allowance, FloatModel, Rounded, quantize_float
from edgekd.pipeline.quantization.result import Quantized, Step
from edgekd.pipeline.quantization.user_model import (
    CalibrationData,
    Images,
    answered_by,
    as_images,
    load_calibration,
    load_user_model,
)
from edgekd.pipeline.stages import Unkept
from edgekd.records import (
    INT8_SCHEMES,
    Accuracy,
    Artifact,
    Budget,
    FileDistance,
    Parity,
    Qat,
    Quantization,
    QuantizationStep,
    Scheme,
    TorchForm,
    Verdict,
)
from edgekd.report.layer_plot import layers_svg
from edgekd.store import write_text, writing_folder
from edgekd.store.places import require_free
from edgekd.tasks import Development
from edgekd.train.examples import resolve_device

RESULT_FILE = "quantize.json"
LAYERS_FILE = "layers.svg"


@dataclass(frozen=True)
class QuantizeOptions:
    """What the command line says. `accuracy_drop_max` None: nothing is judged, and QAT starts beyond 0.005."""

    scheme: Scheme = "wi8_ai8"
    qat: Qat = "auto"
    observer: ObserverChoice = "auto"
    accuracy_drop_max: float | None = None
    epochs: int | None = None
    seed: int = 0
    device: str = "auto"
    steps: Literal["observed", "learned"] = "observed"
    mixed: bool = False
    allow_float_ops: bool = False
    float_io: bool = False
    opset: int | None = None
    prune: PruneOptions | None = None

    @property
    def recipe(self) -> Quantization:
        """The same as a recipe says it."""
        recipe = Quantization(
            qat=self.qat,
            steps=self.steps,
            mixed=self.mixed,
            allow_float_ops=self.allow_float_ops,
            float_io=self.float_io,
            opset=self.opset,
        )
        if self.epochs is None:
            return recipe
        training = recipe.training.model_copy(update={"epochs": self.epochs, "patience": self.epochs})
        return recipe.model_copy(update={"training": training})

    @property
    def allowed(self) -> Allowance:
        """What may be lost to fp32."""
        limit = self.accuracy_drop_max
        return Allowance() if limit is None else Allowance(None, limit, source="--accuracy-drop-max")

    @property
    def lowered_scheme(self) -> Scheme:
        """The scheme with leave to keep in float what has no int8 form, where that was given."""
        return lowered_scheme(self.scheme, self.recipe)


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
    require_consistent(options.scheme, options.recipe)
    require_free(out)
    progress.stage("model", reference)
    model = load_user_model(reference, weights)
    progress.stage("data", calibration)
    data = load_calibration(calibration, model)
    whole, pruning = model, None
    if options.prune is not None:
        scheme, seed, device = options.lowered_scheme, options.seed, options.device
        model, pruning = prune_and_train(
            whole, data, scheme, options.prune, seed=seed, device=device, progress=progress
        )
    work = _Work(model, whole, data, options, progress)
    # What has no form is refused before anything takes time.
    quantize_model(work.float.module, work.float.example, options.lowered_scheme)
    rounded = work.rounded()
    if options.float_io:
        rounded.model.use_float_io()
    with writing_folder(out) as folder:
        result = _written(reference, out, folder, work, rounded, pruning)
    return result


def _written(
    reference: str, out: Path, folder: Path, work: _Work, rounded: Rounded, pruning: PruningReport | None
) -> Quantized:
    """The files and their report, in `folder`, which becomes `out`."""
    final, report, data = rounded.model, rounded.report, work.data
    work.progress.stage("convert", final.scheme)
    names, opset = _names(final.scheme), work.options.opset
    artifacts = convert_student(work.float.module, final, work.float.example, folder, names, opset=opset)
    work.progress.stage("parity", "the files against the module")
    distances = work.distances(final, folder, artifacts)
    agreement = work.parity(final, folder, artifacts)
    right = work.file_correct(folder, artifacts, final.scheme)
    verdict = work.verdict(right)
    result = Quantized(
        model=reference,
        scheme=final.scheme,
        out=str(out),
        pruning=pruning,
        metric="accuracy" if data.labelled else "agreement with fp32",
        test_inputs=len(data.test),
        fp32=work.with_test(report.fp32, rounded.steps["fp32"]),
        ptq=work.with_test(report.ptq, rounded.steps["ptq"]),
        qat=None if report.qat is None else work.with_test(report.qat, rounded.steps["qat"]),
        qat_reason=report.qat_reason,
        chosen=report.chosen,
        mixed=None if report.mixed is None or report.mixed.step is None else work.with_test(report.mixed.step, final),
        mixed_report=report.mixed,
        float_operators=report.float_operators,
        file_accuracy=float(np.mean(right)),
        artifacts=tuple(artifacts),
        parity=agreement,
        distances=distances,
        layers=tuple(sorted(report.layers, key=lambda layer: -layer.damage_nats)),
        verdict=verdict,
        exit_code=EXIT_MET if verdict is None else exit_code([verdict]),
    )
    write_text(folder / RESULT_FILE, result.model_dump_json(indent=2) + "\n")
    if report.layers:
        write_text(folder / LAYERS_FILE, layers_svg(report.layers))
    return result


class _Work:
    """One quantization: what its steps share."""

    def __init__(
        self, model: nn.Module, whole: nn.Module, data: CalibrationData, options: QuantizeOptions, progress: Progress
    ) -> None:
        self.options, self.progress, self.data, self.test = options, progress, data, data.test
        images, development = as_images(model, data.development.train.inputs), data.development
        if not data.labelled:
            train, validation, self.test = (
                answered_by(as_images(whole, data.development.train.inputs), split)
                for split in (development.train, development.validation, data.test)
            )
            development = Development(train, validation)
        channels, height, width = development.train.inputs.shape[1:]
        example = torch.from_numpy(development.train.inputs[:1])
        self.float = FloatModel(
            module=model if isinstance(images, Images) else images,
            images=images,
            example=example.squeeze(2) if isinstance(images, Images) else example,
            data=development,
            shape=(int(channels), int(height), int(width)),
            scheme=options.lowered_scheme,
            labelled=data.labelled,
            seed=options.seed,
            device=resolve_device(options.device),
        )
        self._compared = development.validation.inputs[evenly(len(development.validation), COMPARED_INPUTS)]
        # Before anything is done to the module, so that it shows where something is.
        self._float_logits = torch_logits(images, self._compared)

    def rounded(self) -> Rounded:
        """Calibration, training and layers in float where they are wanted."""
        recipe, allowed, keeper = self.options.recipe, self.options.allowed, Unkept(self.progress, self.options.seed)
        rounded = quantize_float(self.float, keeper, {}, allowed, recipe, self.options.observer)
        return mix(self.float, rounded, allowed, keeper) if recipe.mixed else rounded

    def with_test(self, step: QuantizationStep, model: nn.Module) -> Step:
        """A step with what it gets right of the test split, which nothing has read before."""
        return Step(accuracy=float(np.mean(self.float.right(model, self.test))), **dict(step))

    def parity(self, model: QuantizedModel, out: Path, artifacts: list[Artifact]) -> tuple[Parity, ...]:
        """The gated rungs of `wi8_ai8`, mixed or not; other schemes promise no such agreement."""
        paths = {artifact.format: out / artifact.path for artifact in artifacts if artifact.scheme == model.scheme}
        if model.scheme not in INT8_SCHEMES:
            return ()
        inputs = self.float.data.validation.inputs
        real = inputs[evenly(len(inputs), PARITY_INPUTS)]
        return check_parity(model.cpu(), paths["tflite"], paths["onnx"], real, self.progress.warn)

    def distances(self, model: QuantizedModel, out: Path, artifacts: list[Artifact]) -> tuple[FileDistance, ...]:
        """How far each file is from torch that `parity` does not compare.

        Raises:
            BuildError: an fp32 file does not compute what the module did when it was loaded.
        """
        forms: dict[Scheme, tuple[TorchForm, np.ndarray]] = {
            "fp32": ("the module", self._float_logits),
            "fp16": ("the module", self._float_logits),
        }
        if model.scheme not in (*forms, *INT8_SCHEMES):
            forms[model.scheme] = ("the rounded module", torch_logits(model.cpu(), self._compared))
        found = [
            file_distance(out / artifact.path, self._compared, *forms[artifact.scheme])
            for artifact in artifacts
            if artifact.scheme in forms
        ]
        fp32 = {artifact.path for artifact in artifacts if artifact.scheme == "fp32"}
        require_float_alike(distance for distance in found if distance.path in fp32)
        return tuple(found)

    def _test_rows(self) -> list[int]:
        return evenly(len(self.test), SHIPPED_INPUTS)

    def file_correct(self, out: Path, artifacts: list[Artifact], scheme: Scheme) -> np.ndarray:
        """Per test input, whether the deployed file is right."""
        quantized = [artifact for artifact in artifacts if artifact.scheme == scheme]
        first = min(quantized, key=lambda artifact: artifact.format != "tflite")
        rows = self._test_rows()
        found: np.ndarray = run_model(out / first.path, self.test.inputs[rows]).argmax(1) == self.test.labels[rows]
        return found

    def verdict(self, right: np.ndarray) -> Verdict | None:
        """Whether the file loses no more than was allowed, on the test split; None where nothing was asked."""
        if self.options.accuracy_drop_max is None:
            return None
        float_right = self.float.right(self.float.images, self.test)[self._test_rows()]
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


def _names(scheme: Scheme) -> dict[FileKey, str]:
    names: dict[FileKey, str] = {}
    for file_format in ("tflite", "onnx"):
        for wanted in dict.fromkeys((scheme, "fp32")):
            if not (wanted == "wi8_ai8_symmetric" and file_format == "tflite"):
                names[file_format, wanted] = f"model_{wanted}.{file_format}"
    if scheme == "wi8_ai8_symmetric":
        # What it must be faster than on the GPUs that it is for.
        names["onnx", "fp16"] = "model_fp16.onnx"
    return names
