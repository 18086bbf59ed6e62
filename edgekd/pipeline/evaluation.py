"""Builds the student's files and evaluates every model on the test split."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from edgekd.convert.inference import run_model
from edgekd.convert.parity import check_parity
from edgekd.convert.students import FileKey, convert_student
from edgekd.core.spread import evenly
from edgekd.nn.quantized.model import QuantizedModel
from edgekd.nn.students import Student, example_input
from edgekd.pipeline.stages import StageRunner, cpu_seconds
from edgekd.records import Accuracy, Artifact, Parity, Record
from edgekd.store import RunDirectory
from edgekd.tasks import Split, Task, student_inputs
from edgekd.train.examples import correct, examples_of, logits_of

FORMATS: tuple[Literal["tflite", "onnx"], ...] = ("tflite", "onnx")
SCHEMES: tuple[Literal["wi8_ai8", "fp32"], ...] = ("wi8_ai8", "fp32")

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
) -> BuiltFiles:
    """Convert the student to all its files, audit them, and hold them against the fake-quantized model.

    Raises:
        BuildError: a converter failed, an int8 file is not int8, or the forms disagree.
    """
    inputs = {**weights_sha256, "parity_inputs": PARITY_INPUTS}
    stages.progress.stage("convert", "TFLite and ONNX, int8 and fp32")
    built = stages.cached("convert", inputs, BuiltFiles)
    if built is not None:
        return built
    started, cpu = time.perf_counter(), cpu_seconds()
    names: dict[FileKey, str] = {
        (file_format, scheme): run.student(file_format, fp32=scheme == "fp32").name
        for file_format in FORMATS
        for scheme in SCHEMES
    }
    with run.work("convert") as folder:
        artifacts = convert_student(
            student, quantized, example_input(student.architecture), folder, names, parent=weights_sha256["quantized"]
        )
        stages.progress.stage("parity", "torch, ONNX and TFLite on real inputs")
        rows = evenly(len(validation), PARITY_INPUTS)
        real = student_inputs(validation.inputs[rows], student.architecture.input_shape)
        tflite, onnx = (folder / names[file_format, "wi8_ai8"] for file_format in FORMATS)
        parity = check_parity(quantized, tflite, onnx, real)
        files = [run.adopt(folder / artifact.path, run.path / artifact.path) for artifact in artifacts]
    built = BuiltFiles(artifacts=tuple(artifacts), parity=parity)
    run.finish("convert", stages.hash(inputs), built, files)
    stages.note("convert", {}, time.perf_counter() - started, cpu_seconds() - cpu)
    return built


def evaluate(
    run: RunDirectory,
    stages: StageRunner,
    task: Task,
    built: BuiltFiles,
    teacher: nn.Module,
    scratch: nn.Module | None,
    others: Mapping[str, str],
    shape: tuple[int, int, int],
    device: torch.device,
) -> Accuracy:
    """Accuracy on the test split, which nothing has read before. Students are evaluated as the files that deploy.

    `others` are the weights' hashes of the models that are no files: the teacher and the scratch student.
    """
    stages.progress.stage("evaluate", f"{len(task.test)} test inputs")
    files = {artifact.path: artifact.sha256 for artifact in built.artifacts}
    inputs = {"files": files, "others": others}
    found = stages.cached("evaluate", inputs, Accuracy)
    if found is not None:
        return found
    started, cpu = time.perf_counter(), cpu_seconds()
    test = examples_of(task.test, shape)

    def of_module(model: nn.Module | None, size: tuple[int, int, int]) -> tuple[bool, ...]:
        if model is None:
            return ()
        examples = examples_of(task.test, size)
        return tuple(correct(logits_of(model, examples.inputs, device), examples.labels).tolist())

    def of_file(path: Path) -> tuple[bool, ...]:
        return tuple((run_model(path, test.inputs.numpy()).argmax(1) == task.test.labels).tolist())

    accuracy = accuracy_of(
        teacher=of_module(teacher.to(device), task.input_shape),
        scratch=of_module(scratch.to(device) if scratch is not None else None, shape),
        student_fp32=of_file(run.student("tflite", fp32=True)),
        student_int8=of_file(run.student("tflite")),
    )
    run.finish("evaluate", stages.hash(inputs), accuracy)
    stages.note("evaluate", {}, time.perf_counter() - started, cpu_seconds() - cpu)
    return accuracy


def accuracy_of(
    teacher: tuple[bool, ...],
    scratch: tuple[bool, ...],
    student_fp32: tuple[bool, ...],
    student_int8: tuple[bool, ...],
) -> Accuracy:
    """The record from right and wrong answers; an empty tuple is a model that was not trained."""

    def share(right: tuple[bool, ...]) -> float | None:
        return sum(right) / len(right) if right else None

    return Accuracy(
        teacher=share(teacher),
        scratch=share(scratch),
        student_fp32=share(student_fp32),
        student_int8=share(student_int8),
        inputs=len(student_int8),
        teacher_correct=teacher,
        scratch_correct=scratch,
        student_fp32_correct=student_fp32,
        student_int8_correct=student_int8,
    )


def write_test_inputs(run: RunDirectory, task: Task, shape: tuple[int, int, int]) -> None:
    """Store the test inputs (float32 NCHW, as the student sees them) and labels that go to the board."""
    rows = evenly(len(task.test), SHIPPED_INPUTS)
    inputs = student_inputs(task.test.inputs[rows], shape)
    with run.writing(run.test_inputs) as temporary, temporary.open("wb") as stream:
        np.savez(stream, inputs=inputs, labels=task.test.labels[rows])
