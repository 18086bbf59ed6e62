"""Teachers, students and fake-quantized students: three uses of the one loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from edgekd.nn.quantized.model import QuantizedModel
from edgekd.records import Hard, Objective, Quantization, Training
from edgekd.tasks import Development
from edgekd.train.examples import examples_of, logits_of
from edgekd.train.loop import Progress, Trained, train
from edgekd.train.objectives import Loss

Shape = tuple[int, int, int]
HARD_ONLY = (Hard(),)


def teacher_pass(teacher: nn.Module, data: Development, shape: Shape, device: torch.device) -> Tensor:
    """The teacher's logits (N, classes) over the training split, once for all students: inputs are not augmented."""
    return logits_of(teacher, examples_of(data.train, shape).inputs, device)


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
) -> Trained:
    """Train a model in place on the training split; the validation split decides when to stop.

    Args:
        model: from (B, C, H, W) to logits (B, K).
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

    Raises:
        BuildError: the loss is NaN or infinite.
    """
    loss = Loss(objectives)
    if exact_steps is not None:
        schedule = schedule.model_copy(update={"patience": schedule.epochs})
    return train(
        model,
        examples_of(data.train, shape, teacher_logits if loss.needs_teacher else None),
        examples_of(data.validation, shape),
        loss,
        schedule,
        seed=seed,
        device=device,
        title=title,
        on_progress=on_progress,
        before_step=before_step,
        max_steps=exact_steps,
        may_keep_start=may_keep_start,
    )


def train_quantized(
    model: QuantizedModel,
    data: Development,
    shape: Shape,
    objectives: Sequence[Objective],
    recipe: Quantization,
    *,
    seed: int,
    device: torch.device,
    on_progress: Progress,
    teacher_logits: Tensor | None = None,
) -> Trained:
    """Quantization-aware training, in place, of a fake-quantized copy of a trained student.

    Ranges are set from calibration batches of the training split, follow the activations, and are frozen after
    `recipe.freeze_fraction` of the steps. The calibrated model itself (post-training quantization) is kept where no
    epoch is better on the validation split. Arguments as for `train_model`.

    Raises:
        BuildError: the loss is NaN or infinite.
    """
    model.to(device)
    inputs = examples_of(data.train, shape).inputs
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    size = recipe.training.batch_size
    batches = torch.split(order[: recipe.calibration_batches * size], size)
    model.calibrate(inputs[rows].to(device) for rows in batches)
    trained = train_model(
        model,
        data,
        shape,
        objectives,
        recipe.training,
        seed=seed,
        device=device,
        title="QAT",
        on_progress=on_progress,
        teacher_logits=teacher_logits,
        before_step=lambda step, planned: model.observe(step < recipe.freeze_fraction * planned),
        may_keep_start=True,
    )
    model.freeze()
    return trained
