"""`edgekd parity`: do all forms of a run's student say the same, from float torch to the board?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from edgekd.convert.divergence import Form
from edgekd.convert.parity import GATED, LADDER, LEAST_AGREEMENT, float_rung, form_logits, rungs, torch_logits
from edgekd.core.spread import evenly
from edgekd.errors import BuildError, ConfigurationError
from edgekd.load import load_recipe
from edgekd.nn.quantized.model import QuantizedModel, quantize_model
from edgekd.nn.students import Student, example_input
from edgekd.nn.weights import load_weights
from edgekd.pipeline.boards.deployed import kept_checkpoint
from edgekd.pipeline.console import Progress
from edgekd.pipeline.fitting.evaluation import PARITY_INPUTS
from edgekd.pipeline.fitting.user_space import space_of
from edgekd.records import Measurement, Parity, Record, Report
from edgekd.store import RunDirectory, hash_file
from edgekd.tasks import Task, load_task, student_inputs

RUNGS: tuple[tuple[Form, Form], ...] = (*LADDER, ("torch", "tflite"))


class Rung(Record):
    """Two forms of one student over the same real inputs.

    `bound` is the least top-1 agreement, where the two hold the same parameters and must agree; else None. Distances
    are in steps of the int8 output (LSB). `top1_agreement` is None for a board, of which edgekd keeps the raw outputs'
    distance only, unless that is 0.
    """

    pair: str
    inputs: int
    top1_agreement: float | None
    identical_logits: float
    max_abs_lsb: int | None
    mean_abs_lsb: float | None
    bound: float | None = None
    first_divergent_layer: str | None = None

    @property
    def holds(self) -> bool:
        """Whether the rung is within its bound, where it has one."""
        return self.bound is None or (self.top1_agreement is not None and self.top1_agreement >= self.bound)


class Ladder(Record):
    """What `edgekd parity` found. `accuracy` is each form's over the validation inputs that all were given."""

    schema_version: Literal[1] = 1
    run: str
    task: str
    verdict: Literal["agree", "disagree"]
    inputs: int
    rungs: tuple[Rung, ...]
    accuracy: dict[str, float]
    notes: tuple[str, ...] = ()


def parity(run_path: Path, progress: Progress) -> Ladder:
    """Every rung of a finished run, over its task's validation inputs: the test split is not read.

    Raises:
        ConfigurationError: no such run, or one that is not finished; its task cannot be loaded.
        BuildError: a file or checkpoint of the run is not the one that its report speaks of.
    """
    run = RunDirectory.open(run_path)
    report = run.read_report()
    run.verify_artifacts(report)
    recipe = load_recipe(run.recipe_toml)
    progress.stage("data", recipe.task.name)
    task = load_task(recipe.task.name, recipe.task.options)
    student, quantized = _models(run, report, task)
    shape = student.architecture.input_shape
    rows = evenly(len(task.validation), PARITY_INPUTS)
    inputs, labels = student_inputs(task.validation.inputs[rows], shape), task.validation.labels[rows]
    progress.stage("parity", f"{len(inputs)} validation inputs")
    float_model = _float_student(run, report, student)
    logits = {}
    for form in dict.fromkeys(form for pair in RUNGS for form in pair):
        progress.update(form)
        logits[form] = form_logits(form, quantized, run.student("tflite"), run.student("onnx"), inputs)
    found = [_rung(entry) for entry in rungs(quantized, inputs, RUNGS, logits)]
    accuracy: dict[str, float] = {form: _share(values, labels) for form, values in logits.items()}
    notes: tuple[str, ...] = ()
    if float_model is not None:
        float_logits = torch_logits(float_model, inputs)
        found.insert(0, _rung(float_rung(quantized, inputs, float_logits, logits["torch"])))
        accuracy = {"float": _share(float_logits, labels), **accuracy}
    else:
        notes = ("the run does not say which student it chose, so the float rung is missing",)
    boards, more = _board_rungs(report)
    return Ladder(
        run=str(run.path),
        task=report.task,
        verdict="agree" if all(rung.holds for rung in found) else "disagree",
        inputs=len(inputs),
        rungs=(*found, *boards),
        accuracy=accuracy,
        notes=(*notes, *more),
    )


def _models(run: RunDirectory, report: Report, task: Task) -> tuple[Student, QuantizedModel]:
    """The student's architecture, and its fake-quantized model with the weights that the files were made from."""
    if report.student is None:
        raise ConfigurationError(f"{run.report_json} names no student")
    space = space_of(report.student.space)
    architecture = space.architecture(report.student.choices, task.input_shape, len(task.classes))
    student = Student(architecture)
    int8 = [artifact for artifact in report.artifacts if artifact.scheme not in ("fp32", "fp16")]
    checkpoint = run.checkpoint("quantized" if report.quantization is None else report.quantization.chosen)
    if not int8 or not checkpoint.is_file():
        missing = checkpoint.relative_to(run.path) if int8 else "a quantized artifact in its report"
        raise ConfigurationError(f"{run.path} has no {missing}: `edgekd fit --resume --out {run.path}` makes it anew")
    parent = int8[0].parent
    if parent is not None and hash_file(checkpoint) != parent:
        raise BuildError(f"{checkpoint} is not what the files were made from: its sha256 is not {parent}")
    quantized = quantize_model(student, example_input(architecture), int8[0].scheme)
    load_weights(quantized, checkpoint, "the run's", "the student in the report", BuildError)
    if report.quantization is not None and report.quantization.mixed is not None:
        quantized.keep_float(report.quantization.mixed.float_steps)
    return student, quantized.eval()


def _float_student(run: RunDirectory, report: Report, student: Student) -> Student | None:
    """The float student that was quantized; None where the report does not say which it was."""
    checkpoint = kept_checkpoint(run, report)
    if checkpoint is None:
        return None
    load_weights(student, checkpoint, "the run's", "the student in the report", BuildError)
    return student.eval()


def _share(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(logits.argmax(1) == labels))


def _rung(entry: Parity) -> Rung:
    gated = {f"{first}-{second}" for first, second in GATED}
    return Rung(**entry.model_dump(), bound=LEAST_AGREEMENT if entry.pair in gated else None)


def _board_rungs(report: Report) -> tuple[list[Rung], list[str]]:
    measured = report.units or ((report.measurement,) if report.measurement else ())
    if not measured:
        return [], ["not measured on a board yet: `edgekd deploy` adds that rung"]
    compared = [(unit, _board_rung(unit)) for unit in measured]
    missing = [
        f"{unit.board}: its outputs were not compared with this machine's" for unit, rung in compared if not rung
    ]
    return [rung for _, rung in compared if rung], missing


def _board_rung(unit: Measurement) -> Rung | None:
    found = unit.host_parity
    if found is None:
        return None
    return Rung(
        pair=f"{unit.runtime}-{unit.board}",
        inputs=found.inputs,
        top1_agreement=1.0 if found.bit_exact else None,
        identical_logits=found.identical,
        max_abs_lsb=found.max_abs_lsb,
        mean_abs_lsb=found.mean_abs_lsb,
    )
