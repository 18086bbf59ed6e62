"""The training loop. There is one: teachers, students, ablations and QAT all run through it."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.records import Training
from edgekd.train.examples import Examples, correct, logits_of
from edgekd.train.objectives import Loss, nan_error
from edgekd.train.objectives.signals import Signals

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """What a training run gave: the state of the best epoch by validation accuracy, and what it cost."""

    state: dict[str, Tensor]
    validation_accuracy: float
    best_epoch: int
    epochs: int
    steps: int
    wall_s: float
    history: tuple[float, ...]


def learning_rate_factor(step: int, total: int, warmup_fraction: float) -> float:
    """Share of the peak learning rate at a step: a linear warm-up, then half a cosine (arXiv:1608.03983) to 1 %."""
    warmup = int(total * warmup_fraction)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def _optimizer(model: nn.Module, schedule: Training) -> torch.optim.Optimizer:
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": schedule.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=schedule.learning_rate)


class _Average:
    """An exponential moving average of a model's weights and statistics (Polyak and Juditsky 1992).

    The decay starts low, so that the average forgets the random start. With decay 0 it is the model itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model) if decay > 0 else model
        self._decay, self._steps = decay, 0
        pairs = zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        self._pairs = [pair for pair in pairs if pair[0].data_ptr() != pair[1].data_ptr()]

    @torch.no_grad()
    def update(self) -> None:
        self._steps += 1
        decay = min(self._decay, self._steps / (self._steps + 9))
        for mean, value in self._pairs:
            if mean.dtype.is_floating_point:
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


def train(
    model: nn.Module,
    data: Examples,
    validation: Examples,
    loss: Loss,
    schedule: Training,
    *,
    seed: int,
    device: torch.device,
    title: str,
    on_progress: Progress = lambda message: None,
    before_step: Callable[[int, int], None] | None = None,
    max_steps: int | None = None,
    may_keep_start: bool = False,
) -> Trained:
    """Train a model in place and leave it in the state of its best epoch by accuracy on the validation split.

    Stops when `schedule.patience` epochs have not raised the validation accuracy, or after `max_steps`
    (the learning-rate schedule is then still that of all epochs, so that runs of equal steps compare).

    Args:
        model: from (B, C, H, W) to logits (B, K).
        data: what the gradient comes from.
        validation: what early stopping looks at.
        loss: the objectives.
        schedule: epochs, batch size, learning rate and the rest.
        seed: of the order of batches and of dropout; on a CPU the same seed gives the same weights.
        device: where to train.
        title: what is being trained, for progress and errors.
        on_progress: called about once an epoch with a line for people.
        before_step: called with (step, planned steps) before each step.
        max_steps: an upper bound on the steps.
        may_keep_start: the model as it was given takes part as epoch 0, and wins where training never beats it.

    Raises:
        BuildError: the loss is NaN or infinite; names the term.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch_size = min(schedule.batch_size, len(data))
    per_epoch = max(1, len(data) // batch_size)
    planned = per_epoch * schedule.epochs
    limit = min(planned, max_steps) if max_steps is not None else planned
    optimizer = _optimizer(model, schedule)
    average = _Average(model, schedule.ema_decay)
    step, best, best_epoch, history = 0, -1.0, -1, []
    state: dict[str, Tensor] = {}
    if may_keep_start:
        best, state = _validated(model, validation, device)
    for epoch in range(schedule.epochs):
        model.train()
        shuffled = torch.randperm(len(data), generator=order)[: per_epoch * batch_size]
        for rows in torch.split(shuffled, batch_size):
            if step >= limit:
                break
            if before_step is not None:
                before_step(step, planned)
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * learning_rate_factor(step, planned, schedule.warmup_fraction)
            _step(
                model,
                data,
                rows,
                loss,
                optimizer,
                schedule.clip_norm,
                device,
                f"{title}, epoch {epoch + 1}, step {step}",
            )
            average.update()
            step += 1
        accuracy, reached = _validated(average.model, validation, device)
        history.append(accuracy)
        if accuracy > best if may_keep_start and best_epoch < 0 else accuracy >= best:
            best, best_epoch, state = accuracy, epoch, reached
        on_progress(
            f"{title}: epoch {epoch + 1}/{schedule.epochs}, validation accuracy {accuracy:.4f}, best {best:.4f}"
        )
        if step >= limit or epoch - best_epoch >= schedule.patience:
            break
    model.load_state_dict(state)
    model.eval()
    return Trained(state, best, best_epoch, len(history), step, time.perf_counter() - started, tuple(history))


def _validated(model: nn.Module, validation: Examples, device: torch.device) -> tuple[float, dict[str, Tensor]]:
    """Accuracy on the validation split, and a copy of the state that has it."""
    accuracy = float(correct(logits_of(model, validation.inputs, device), validation.labels).float().mean())
    return accuracy, {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _step(
    model: nn.Module,
    data: Examples,
    rows: Tensor,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    clip_norm: float,
    device: torch.device,
    where: str,
) -> None:
    inputs = data.inputs[rows].to(device).contiguous(memory_format=torch.channels_last)
    teacher = None if data.teacher_logits is None else data.teacher_logits[rows].to(device)
    signals = Signals(model(inputs), data.labels[rows].to(device), teacher)
    value = loss(signals)
    if not torch.isfinite(value):
        raise nan_error(loss, signals, where, optimizer.param_groups[0]["lr"])
    optimizer.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
