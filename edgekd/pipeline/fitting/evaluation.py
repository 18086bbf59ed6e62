"""Builds the student's files and evaluates every model on the test split."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.convert.distances import COMPARED_INPUTS, file_distance, require_float_alike
from edgekd.convert.inference import run_model
from edgekd.convert.model_file import read_graph
from edgekd.convert.operators import float_share
from edgekd.convert.parity import check_parity, torch_logits
from edgekd.convert.students import FileKey, convert_student
from edgekd.core.architecture import operator_list
from edgekd.core.costs import predict_mixed_costs
from edgekd.core.slices import slice_accuracies
from edgekd.core.spread import evenly
from edgekd.nn.quantized.model import QuantizedModel
from edgekd.nn.students import Student, example_input
from edgekd.pipeline.distillation.teaching import Teaching
from edgekd.pipeline.distillation.verdict import slice_masks
from edgekd.pipeline.fitting.search import Selected
from edgekd.pipeline.settings import Settings
from edgekd.pipeline.stages import StageRunner, TrainedModel, cpu_seconds
from edgekd.records import Accuracy, Artifact, Candidate, Parity, Record
from edgekd.store import RunDirectory
from edgekd.tasks import Split, Task, student_inputs
from edgekd.train.calibration import expected_calibration_error
from edgekd.train.examples import correct, examples_of, logits_of

FORMATS: tuple[Literal["tflite", "onnx"], ...] = ("tflite", "onnx")
PARITY_INPUTS = 1000
"""Validation inputs over which the files are held against the torch model; all where there are fewer."""

SHIPPED_INPUTS = 2000
"""Test inputs that go to the board, evenly spaced over the test split; all where there are fewer."""


class BuiltFiles(Record):
    """The student's files and how far they agree."""

    artifacts: tuple[Artifact, ...]
    parity: tuple[Parity, ...]


def build_files(
    run: RunDirectory,
    stages: StageRunner,
    student: Student,
    quantized: QuantizedModel,
    weights_sha256: Mapping[str, str],
    validation: Split,
    opset: int | None = None,
) -> BuiltFiles:
    """Convert the student to all its files, audit them, and hold them against the fake-quantized model.

    Raises:
        BuildError: a converter failed, an int8 file is not int8, the forms disagree, or an fp32 file is not the
            float student.
    """
    scheme, islands = quantized.scheme, quantized.islands
    inputs: dict[str, Any] = {**weights_sha256, "parity_inputs": PARITY_INPUTS, "scheme": scheme, "opset": opset}
    inputs |= {"float_steps": sorted(islands.steps), "float_io": islands.float_io}
    stages.progress.stage("convert", f"TFLite and ONNX, {scheme} and fp32")
    built = stages.cached("convert", inputs, BuiltFiles)
    if built is not None:
        return built
    started, cpu = time.perf_counter(), cpu_seconds()
    names: dict[FileKey, str] = {
        (file_format, stored): run.student(file_format, fp32=stored == "fp32").name
        for file_format in FORMATS
        for stored in (scheme, "fp32")
    }
    with run.work("convert") as folder:
        example, parent = example_input(student.architecture), weights_sha256["quantized"]
        artifacts = convert_student(student, quantized, example, folder, names, parent=parent, opset=opset)
        stages.progress.stage("parity", "torch, ONNX and TFLite on real inputs")
        rows = evenly(len(validation), PARITY_INPUTS)
        real = student_inputs(validation.inputs[rows], student.architecture.input_shape)
        tflite, onnx = (folder / names[file_format, scheme] for file_format in FORMATS)
        parity = check_parity(quantized, tflite, onnx, real, stages.progress.warn)
        few = real[evenly(len(real), COMPARED_INPUTS)]
        expected = torch_logits(student, few)
        require_float_alike(
            file_distance(folder / names[file_format, "fp32"], few, "the module", expected) for file_format in FORMATS
        )
        files = [run.adopt(folder / artifact.path, run.path / artifact.path) for artifact in artifacts]
    built = BuiltFiles(artifacts=tuple(artifacts), parity=parity)
    run.finish("convert", stages.hash(inputs), built, files)
    stages.note("convert", {}, time.perf_counter() - started, cpu_seconds() - cpu)
    return built


class Evaluated(Record):
    """Accuracy on the test split, by slice too; and how the float student relates to its teacher.

    `fidelity` holds the fields of `DistillationReport` that are of the test split.
    """

    accuracy: Accuracy
    fidelity: dict[str, float]
    built: BuiltFiles


def evaluate(
    run: RunDirectory,
    stages: StageRunner,
    teaching: Teaching,
    built: BuiltFiles,
    kept: Selected,
    others: Mapping[str, tuple[Student, TrainedModel]],
) -> Evaluated:
    """Accuracy on the test split, which nothing has read before; of the kept student that of the files that deploy.

    `others` are the scratch and the distilled student; those that were not trained are missing.
    """
    task, teacher, device = teaching.task, teaching.teacher, teaching.device
    stages.progress.stage("evaluate", f"{len(task.test)} test inputs")
    files = {artifact.path: artifact.sha256 for artifact in built.artifacts}
    weights = {name: record.weights_sha256 for name, (_, record) in others.items()}
    inputs = {"files": files, "others": weights, "teacher": teacher.identity}
    found = stages.cached("evaluate", inputs, Evaluated)
    if found is not None:
        return found
    started, cpu = time.perf_counter(), cpu_seconds()
    test = examples_of(task.test, kept.student.architecture.input_shape)

    def logits(model: nn.Module) -> Tensor:
        return logits_of(model.to(device), test.inputs, device)

    told = logits_of(teacher.module.to(device), examples_of(task.test, task.input_shape).inputs, device)
    found_logits = {name: logits(model) for name, (model, _) in others.items()}
    distilled = found_logits.get("distilled", logits(kept.student))
    fidelity = {
        "agreement": float((distilled.argmax(1) == told.argmax(1)).float().mean()),
        "ece": expected_calibration_error(distilled, test.labels),
    }
    if "scratch" in found_logits:
        fidelity["scratch_ece"] = expected_calibration_error(found_logits["scratch"], test.labels)

    def right(answers: Tensor) -> tuple[bool, ...]:
        return tuple(correct(answers, test.labels).tolist())

    def of_file(path: Path) -> tuple[bool, ...]:
        return right(torch.from_numpy(run_model(path, test.inputs.numpy())))

    accuracy = accuracy_of(
        teacher=right(told),
        student_fp32=of_file(run.student("tflite", fp32=True)),
        student_int8=of_file(run.student("tflite")),
        **{name: right(answers) for name, answers in found_logits.items()},
    )
    accuracy = accuracy.model_copy(update={"slices": slice_accuracies(accuracy, slice_masks(task))})
    evaluated = Evaluated(accuracy=accuracy, fidelity=fidelity, built=built)
    run.finish("evaluate", stages.hash(inputs), evaluated)
    stages.note("evaluate", {}, time.perf_counter() - started, cpu_seconds() - cpu)
    return evaluated


def mixed_costs(selected: Selected, tflite: Path, settings: Settings) -> Candidate:
    """The candidate with what it is predicted to cost now that some of its layers are in float."""
    share, operators = float_share(read_graph(tflite)), operator_list(selected.student.architecture)
    predicted = predict_mixed_costs(settings.profile, settings.budget, operators, share)
    return selected.candidate.model_copy(update={"predicted": predicted})


def accuracy_of(**right: tuple[bool, ...]) -> Accuracy:
    """The record from right and wrong answers by model; one that was not trained is not there."""
    fields: dict[str, Any] = {"inputs": len(right["student_int8"])}
    for name, answers in right.items():
        fields |= {name: sum(answers) / len(answers), f"{name}_correct": answers}
    return Accuracy(**fields)


def write_test_inputs(run: RunDirectory, task: Task, shape: tuple[int, int, int]) -> None:
    """Store the test inputs (float32 NCHW, as the student sees them) and labels that go to the board."""
    rows = evenly(len(task.test), SHIPPED_INPUTS)
    inputs = student_inputs(task.test.inputs[rows], shape)
    with run.writing(run.test_inputs) as temporary, temporary.open("wb") as stream:
        np.savez(stream, inputs=inputs, labels=task.test.labels[rows])
