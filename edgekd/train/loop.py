"""The training loop. There is one: teachers, students, ablations, every regime and QAT run through it."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.records import Training
from edgekd.train import checkpoint as checkpoints
from edgekd.train.additions import Additions, Checkpointing
from edgekd.train.averaging import WeightAverage
from edgekd.train.examples import FORMAT, Examples, logits_of
from edgekd.train.features import FeatureLink, watching
from edgekd.train.objectives import Loss, nan_error
from edgekd.train.objectives.signals import Signals

__all__ = ["Additions", "Checkpointing", "Progress", "Trained", "learning_rate_factor", "train"]

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """What a training run gave: the state of the best epoch by validation accuracy, and what it cost.

    Where the outputs are no classes, `validation_accuracy` and `history` are scores by the task's metric, of which a
    higher one is better: an error counts negative (`Metric.of_score`).
    """

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


def _mixes(schedule: Training, device: torch.device) -> bool:
    """Whether the model runs in bfloat16; losses, weights, averages and validation stay float32."""
    if schedule.mixed_precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return schedule.mixed_precision


def _optimizer(model: nn.Module, link: FeatureLink | None, schedule: Training) -> torch.optim.Optimizer:
    parameters = [*model.parameters(), *(link.regressors.parameters() if link else ())]
    weights = [parameter for parameter in parameters if parameter.requires_grad and parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.requires_grad and parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": schedule.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=schedule.learning_rate, fused=True)


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
    additions: Additions = Additions(),
    checkpoint: Checkpointing | None = None,
) -> Trained:
    """Train a model in place and leave it in the state of its best epoch by the validation split's metric.

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
        additions: what a regime adds.
        checkpoint: where to keep where the run stands, and go on from.

    Raises:
        BuildError: the loss is NaN or infinite, naming the term; a damaged checkpoint.
        ConfigurationError: a layer that does not exist; a checkpoint of another run; an objective that has no meaning
            for these outputs.
    """
    started = time.perf_counter()
    loss.require(data.outputs)
    run = _Run(model, data, validation, loss, schedule, seed, device, title, max_steps, may_keep_start, additions)
    if checkpoint is not None and not (loss.resumable and additions.synthesise is None):
        logger.info("%s: has an opponent or a source that is not kept, and starts over where it is stopped", title)
        checkpoint = None
    if checkpoint is not None:
        run.resume(checkpoint)
    with run.observed():
        while not run.finished:
            run.epoch(before_step)
            run.validate()
            if checkpoint is not None:
                run.keep(checkpoint)
            on_progress(run.line())
            if additions.on_epoch is not None:
                additions.on_epoch(len(run.history), run.history[-1])
    model.load_state_dict(run.state)
    model.eval()
    wall_s = time.perf_counter() - started
    return Trained(run.state, run.best, run.best_epoch, len(run.history), run.step, wall_s, tuple(run.history))


class _Run:
    """One run of the loop, and where it stands."""

    def __init__(
        self,
        model: nn.Module,
        data: Examples,
        validation: Examples,
        loss: Loss,
        schedule: Training,
        seed: int,
        device: torch.device,
        title: str,
        max_steps: int | None,
        may_keep_start: bool,
        additions: Additions,
    ) -> None:
        torch.manual_seed(seed)
        self.order = torch.Generator().manual_seed(seed)
        self.model, self.loss, self.schedule, self.device, self.title = model, loss, schedule, device, title
        self.data, self.validation, self.additions = data, validation, additions
        model.to(device, memory_format=FORMAT)  # type: ignore[call-overload]
        self.mixed = _mixes(schedule, device)
        self.batch_size = min(schedule.batch_size, len(data))
        self.per_epoch = max(1, len(data) // self.batch_size)
        self.planned = self.per_epoch * schedule.epochs
        self.limit = min(self.planned, max_steps) if max_steps is not None else self.planned
        self.average = WeightAverage(model, schedule.ema_decay)
        self.compared = additions.compared or model
        self.link = self._linked()
        self.optimizer = _optimizer(model, self.link, schedule)
        self._trainable = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.step, self.best, self.best_epoch = 0, -math.inf, -1
        self.history: list[float] = []
        self.state: dict[str, Tensor] = {}
        self._start_stands = may_keep_start
        self._seen: dict[str, Tensor] = {}
        self._saved = time.monotonic()
        self._identity = checkpoints.identity(
            [(name, tuple(value.shape)) for name, value in model.state_dict().items()],
            (title, seed, schedule, data.digest(), loss.objectives, max_steps, may_keep_start, str(device)),
        )
        if may_keep_start:
            self.best, self.state = _validated(model, validation, device)

    def _linked(self) -> FeatureLink | None:
        if not self.loss.featured:
            return None
        features = self.additions.features
        assert features is not None, "an objective that needs features was run without a teacher's"
        return FeatureLink(self.loss.featured, self.compared, self.data.inputs[:1].to(self.device), features)

    @property
    def finished(self) -> bool:
        """Whether all steps are done or patience is at its end."""
        epoch = len(self.history)
        tired = epoch > 0 and epoch - 1 - self.best_epoch >= self.schedule.patience
        return self.step >= self.limit or epoch >= self.schedule.epochs or tired

    @contextlib.contextmanager
    def observed(self) -> Iterator[None]:
        """Watch the student's layers, where an objective needs them."""
        if self.link is None:
            yield
            return
        with watching(self.compared, self.link.student_layers) as self._seen:
            yield

    def epoch(self, before_step: Callable[[int, int], None] | None) -> None:
        """One pass over the data, or up to the last step."""
        self.model.train()
        epoch, size = len(self.history), self.per_epoch * self.batch_size
        if self.additions.choose_rows is not None:
            rows = self.additions.choose_rows(epoch, self.schedule.epochs, self.order)[:size]
        else:
            rows = torch.randperm(len(self.data), generator=self.order)[:size]
        for batch in torch.split(rows, self.batch_size):
            if self.step >= self.limit:
                break
            if before_step is not None:
                before_step(self.step, self.planned)
            factor = learning_rate_factor(self.step, self.planned, self.schedule.warmup_fraction)
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule.learning_rate * factor
            self._update(batch)
            self.average.update()
            self.step += 1

    def _update(self, rows: Tensor) -> None:
        signals = self._signals(rows)
        value = self.loss(signals, self.step / self.planned)
        if not torch.isfinite(value):
            where = f"{self.title}, epoch {len(self.history) + 1}, step {self.step}"
            raise nan_error(self.loss, signals, where, self.optimizer.param_groups[0]["lr"])
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._trainable, self.schedule.clip_norm)
        self.optimizer.step()

    def _signals(self, rows: Tensor) -> Signals:
        data, additions = self.data, self.additions
        teacher: Tensor | None
        if additions.synthesise is not None:
            inputs, labels, teacher = additions.synthesise(self.model, len(rows))
        else:
            inputs, labels = data.inputs[rows].to(self.device), data.labels[rows].to(self.device)
            teacher = None if data.teacher_logits is None else data.teacher_logits[rows].to(self.device)
        inputs = inputs.contiguous(memory_format=FORMAT)
        if additions.own_average_teaches:
            with torch.no_grad():
                teacher = self.average.model.eval()(inputs).float()
        if additions.change_inputs is not None:
            inputs = additions.change_inputs(self.model, inputs, labels, teacher)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            student = self.model(inputs).float()
            features = {} if self.link is None else self.link.features(self._seen, rows)
        return Signals(student, labels, teacher, features, data.outputs)

    def validate(self) -> None:
        """Judge the epoch by the validation split, and keep its state where it is the best so far."""
        score, reached = _validated(self.average.model, self.validation, self.device)
        self.history.append(score)
        beats_start = score > self.best if self._start_stands else score >= self.best
        if beats_start:
            self.best, self.best_epoch, self.state = score, len(self.history) - 1, reached
            self._start_stands = False

    def line(self) -> str:
        """Where the run stands, for people."""
        epochs = f"epoch {len(self.history)}/{self.schedule.epochs}"
        metric = self.validation.metric
        now, best = metric.of_score(self.history[-1]), metric.of_score(self.best)
        return f"{self.title}: {epochs}, validation {metric.words} {now:.4f}, best {best:.4f}"

    def keep(self, where: Checkpointing) -> None:
        """Write where the run stands, unless that was done a moment ago."""
        if time.monotonic() - self._saved < where.interval_s and not self.finished:
            return
        state: dict[str, Any] = {
            "identity": checkpoints.identity(self._identity, where.key),
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "average_steps": self.average.steps,
            "regressors": self.link.regressors.state_dict() if self.link else {},
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "random": torch.get_rng_state(),
            "step": self.step,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "start_stands": self._start_stands,
            "state": self.state,
        }
        checkpoints.save(where.path, state)
        self._saved = time.monotonic()

    def resume(self, where: Checkpointing) -> None:
        """Go on from a checkpoint, where there is one."""
        state = checkpoints.load(where.path, checkpoints.identity(self._identity, where.key))
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.steps = state["average_steps"]
        if self.link is not None:
            self.link.regressors.load_state_dict(state["regressors"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.set_state(state["order"])
        torch.set_rng_state(state["random"])
        self.step, self.best, self.best_epoch = state["step"], state["best"], state["best_epoch"]
        self.history, self._start_stands, self.state = list(state["history"]), state["start_stands"], state["state"]
        stands = "finished before, taken" if self.finished else f"goes on after epoch {len(self.history)}"
        logger.info("%s: %s from %s", self.title, stands, where.path)


def _validated(model: nn.Module, validation: Examples, device: torch.device) -> tuple[float, dict[str, Tensor]]:
    """The score on the validation split, and a copy of the state that has it."""
    score = validation.metric.score(logits_of(model, validation.inputs, device), validation.labels)
    return score, {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
