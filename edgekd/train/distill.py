"""Teachers, students and fake-quantized students: three uses of the one loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.errors import ConfigurationError
from edgekd.nn.quantized.learned_steps import learn_steps, settle_steps
from edgekd.nn.quantized.model import QuantizedModel
from edgekd.records import Hard, Hinton, Objective, Quantization, Training
from edgekd.tasks import Development, Split
from edgekd.train.examples import examples_of, logits_of
from edgekd.train.features import TeacherFeatures
from edgekd.train.loop import Additions, Checkpointing, Progress, Trained, train
from edgekd.train.objectives import Loss

Shape = tuple[int, int, int]
HARD_ONLY = (Hard(),)
QAT_OBJECTIVES = (Hard(weight=0.3), Hinton(weight=0.7, temperature=3.0))


def train_model(
    model: nn.Module,
    data: Development,
    shape: Shape,
    objectives: Sequence[Objective],
    schedule: Training,
    *,
    seed: int,
    device: torch.device,
    title: str,
    on_progress: Progress,
    teacher_logits: Tensor | None = None,
    exact_steps: int | None = None,
    before_step: Callable[[int, int], None] | None = None,
    may_keep_start: bool = False,
    teacher: nn.Module | None = None,
    feature_cache: Path | None = None,
    additions: Additions = Additions(),
    checkpoint: Checkpointing | None = None,
) -> Trained:
    """Train a model in place on the training split; the validation split decides when to stop.

    Args:
        model: from (B, C, H, W) to logits or values (B, K).
        data: the splits that decisions may read.
        shape: (C, H, W) the model takes.
        objectives: the terms of the loss; without a teacher's term this is training from scratch.
        schedule: epochs, learning rate and the rest.
        seed: of the order of batches and of dropout.
        device: where to train.
        title: what is being trained, for progress and errors.
        on_progress: called once an epoch.
        teacher_logits: (N, K) over the training split, where a term needs them.
        exact_steps: train for just so many steps, whatever the patience: an ablation beside another run.
        before_step: called with (step, planned steps) before each step.
        may_keep_start: the model as it was given may win.
        teacher: the teacher itself, at the task's own input shape, where a term needs its layers.
        feature_cache: a directory in which those layers' features are kept, computed once for all students.
        additions: what a regime adds to the loop.
        checkpoint: where to keep where the run stands, and go on from.

    Raises:
        BuildError: the loss is NaN or infinite.
        ConfigurationError: outputs of teacher and student of different size, a layer that does not exist.
    """
    loss = Loss(objectives)
    if loss.needs_teacher and teacher_logits is not None:
        _require_same_outputs(model, data.validation, shape, teacher_logits, device)
    if loss.featured and additions.features is None:
        if teacher is None:
            kinds = ", ".join(objective.kind for objective in loss.featured)
            raise ConfigurationError(f"distill.objectives: {kinds} needs the layers of a teacher, and there is none")
        inputs = torch.from_numpy(np.ascontiguousarray(data.train.inputs))
        additions = replace(additions, features=TeacherFeatures(teacher, inputs, device, feature_cache))
    if exact_steps is not None:
        schedule = schedule.model_copy(update={"patience": schedule.epochs})
    return train(
        model,
        examples_of(data.train, shape, teacher_logits if loss.needs_teacher else None),
        examples_of(data.validation, shape, metric=data.metric),
        loss,
        schedule,
        seed=seed,
        device=device,
        title=title,
        on_progress=on_progress,
        before_step=before_step,
        max_steps=exact_steps,
        may_keep_start=may_keep_start,
        additions=additions,
        checkpoint=checkpoint,
    )


def _require_same_outputs(
    model: nn.Module, split: Split, shape: Shape, teacher_logits: Tensor, device: torch.device
) -> None:
    ours = logits_of(model.to(device), examples_of(split, shape).inputs[:1], device).shape[1]
    if teacher_logits.shape[1] != ours:
        raise ConfigurationError(
            f"the teacher has {teacher_logits.shape[1]} outputs and the student {ours}: they must answer the same "
            "question; bring a teacher of the task's own classes"
        )


def train_quantized(
    model: QuantizedModel,
    data: Development,
    shape: Shape,
    recipe: Quantization,
    *,
    seed: int,
    device: torch.device,
    on_progress: Progress,
    float_logits: Tensor,
    labelled: bool = True,
) -> Trained:
    """Quantization-aware training, in place, of a calibrated model, distilling from the float one that it rounds.

    Ranges follow the activations, or are learned (`recipe.steps`), and are frozen after `recipe.freeze_fraction` of
    the steps. The model as it was given is kept where no epoch is better on the validation split. Always in float32.

    Args:
        model: calibrated.
        data: the splits that decisions may read.
        shape: (C, H, W) of the model's inputs.
        recipe: schedule, and when ranges freeze.
        seed: of the order of batches.
        device: where to train.
        on_progress: called once an epoch.
        float_logits: (N, K) of the float model over the training split.
        labelled: whether the labels are true ones and teach too.

    Raises:
        BuildError: the loss is NaN or infinite.
    """
    model.to(device)
    if recipe.steps == "learned":
        learn_steps(model)
    trained = train_model(
        model,
        data,
        shape,
        QAT_OBJECTIVES if labelled else (Hinton(weight=1.0),),
        # bfloat16 has fewer bits than the rounding that is being learnt.
        recipe.training.model_copy(update={"mixed_precision": False}),
        seed=seed,
        device=device,
        title="QAT",
        on_progress=on_progress,
        teacher_logits=float_logits,
        before_step=lambda step, planned: model.observe(step < recipe.freeze_fraction * planned),
        may_keep_start=True,
    )
    settle_steps(model)
    model.freeze()
    return trained
