"""What to do, as data: task, student space, distillation, quantization, seed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from edgekd.records.base import SCHEMA_VERSION, Fraction, NonNegative, Positive, PositiveInt, Record
from edgekd.records.budget import Budget
from edgekd.records.objectives import AnyObjective, Hard, Hinton
from edgekd.records.regimes import (
    Adversarial,
    Continual,
    Curriculum,
    DataFree,
    MultiTask,
    MultiTeacher,
    Online,
    Progressive,
    Regime,
    SelfDistillation,
    SemiSupervised,
)


class TaskChoice(Record):
    """The task's name or file, and the options that the task itself declares."""

    name: str = "watch-gestures"
    options: dict[str, Any] = {}


class StudentChoice(Record):
    """Which space to search, how, and choices to hold fixed in it. `space = "auto"` takes the task's own.

    `search = "halving"` gives the sizes of the ladder short distillation runs until accuracy stops rising, then `pool`
    candidates of that size, and trains the most promising one whole. `"ladder"` trains up to `grow` sizes in turn,
    smallest viable first, until accuracy stops rising.
    """

    space: str = "auto"
    fixed: dict[str, Any] = {}
    search: Literal["ladder", "halving"] = "ladder"
    pool: PositiveInt = Field(default=10, description="how many candidates get a short run after sizes in turn")
    grow: PositiveInt = Field(default=6, description="how many sizes a ladder tries, smallest viable first")


class Training(Record):
    """One training run.

    `patience` counts epochs without a better validation score before stopping early. `ema_decay` averages the
    weights over the steps, and the average is what is validated and kept; 0 keeps the weights themselves.
    `mixed_precision` is bfloat16 autocast of the model in training: "auto" where CUDA has it, true on a CPU too (most
    are slower with it), false nowhere.
    """

    epochs: PositiveInt
    batch_size: PositiveInt = 64
    learning_rate: Positive
    weight_decay: NonNegative = 1e-4
    warmup_fraction: Fraction = 0.1
    clip_norm: Positive = 5.0
    patience: PositiveInt = 15
    ema_decay: Fraction = 0.98
    mixed_precision: bool | Literal["auto"] = "auto"


TuneSearch = Literal["bayes", "random", "grid"]


class Distillation(Record):
    """The teaching signals and their schedule. Defaults: Hinton et al. 2015 (arXiv:1503.02531), T = 3, soft .7.

    `choose = "auto"` replaces the objectives by the kind that wins short runs on the validation split; with
    `tune_minutes` a search over kind, weight, temperature and learning rate does.
    """

    objectives: tuple[AnyObjective, ...] = (Hard(weight=0.3), Hinton(weight=0.7, temperature=3.0))
    training: Training = Training(epochs=40, learning_rate=3e-3)
    regime: Regime = "offline"
    calibration: Literal["none", "temperature", "vector"] = Field(
        default="none", description="of the teacher's logits before they teach, fitted on the validation split"
    )
    self_distillation: SelfDistillation = SelfDistillation()
    online: Online = Online()
    multi_teacher: MultiTeacher = MultiTeacher()
    progressive: Progressive = Progressive()
    curriculum: Curriculum = Curriculum()
    semi_supervised: SemiSupervised = SemiSupervised()
    data_free: DataFree = DataFree()
    adversarial: Adversarial = Adversarial()
    continual: Continual = Continual()
    multi_task: MultiTask = MultiTask()
    choose: Literal["given", "auto"] = "given"
    tune_minutes: Positive | None = None
    tune_search: TuneSearch = "bayes"


Qat = Literal["auto", "always", "never"]


class Quantization(Record):
    """Calibration first, and quantization-aware training (QAT) after it where `qat` says so.

    `auto` trains only where calibration alone misses the budget's `accuracy_drop_max`, or, without one, loses more
    than 0.5 points to fp32, on the validation split. Ranges freeze after `freeze_fraction` of QAT's steps.
    """

    scheme: Literal["wi8_ai8"] = "wi8_ai8"
    qat: Qat = "auto"
    training: Training = Training(epochs=6, learning_rate=3e-4, warmup_fraction=0.0, patience=6, ema_decay=0.0)
    freeze_fraction: Fraction = 0.6
    steps: Literal["observed", "learned"] = Field(
        default="observed", description="whether QAT's ranges follow what is seen, or are trained themselves (LSQ+)"
    )
    calibration_batches: PositiveInt = Field(default=16, description="of 64 training inputs each, that set the ranges")
    mixed: bool = Field(
        default=False, description="where too much is still lost, the layers that rounding hurts most stay in float"
    )
    allow_float_ops: bool = Field(default=False, description="what has no int8 form stays in float")
    float_io: bool = Field(default=False, description="a float input and output in the .tflite file; .onnx has them")
    opset: PositiveInt | None = Field(default=None, description="of the .onnx files; none is 17")


class Recipe(Record):
    """Everything a run needs beside the profile; with the same seed and data it repeats the run."""

    schema_version: Literal[1] = SCHEMA_VERSION
    profile: str | None = None
    task: TaskChoice = TaskChoice()
    student: StudentChoice = StudentChoice()
    teacher: Training | None = Field(default=None, description="None takes the task's own schedule")
    teacher_file: str | None = Field(
        default=None, description="a teacher that is brought: .onnx, .pt2 (torch.export), .pt weights of the task's own"
    )
    distill: Distillation = Distillation()
    quantize: Quantization = Quantization()
    budget: Budget = Budget()
    ablation: Literal["none", "scratch", "full"] = "scratch"
    ablation_seeds: PositiveInt = Field(default=3, description="seeds of the students of a full ablation")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
