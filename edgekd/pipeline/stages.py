"""Runs a stage once: a finished one whose inputs have the same hash is taken from the run directory."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from pydantic import BaseModel
from torch import nn

import edgekd
from edgekd.errors import BuildError
from edgekd.nn.weights import load_weights
from edgekd.pipeline.console import Progress
from edgekd.records import Record, Stage
from edgekd.store import RunDirectory, hash_file, hash_inputs
from edgekd.train.loop import Trained

R = TypeVar("R", bound=BaseModel)
M = TypeVar("M", bound=nn.Module)


class TrainedModel(Record):
    """A trained model's weights, and how the training went. The accuracy is None for a model brought trained.

    `steps` are its own, `total_steps` those of everything that was trained on the way to it; `detail` is what else is
    to be known of it.
    """

    weights_sha256: str
    parameters: int
    validation_accuracy: float | None
    best_epoch: int
    epochs: int
    steps: int
    wall_s: float
    cpu_s: float
    total_steps: int = 0
    detail: dict[str, Any] = {}


@dataclass(frozen=True)
class Made:
    """How a model was made: its training where there was one, its validation accuracy where that is known, the rest."""

    trained: Trained | None = None
    validation_accuracy: float | None = None
    total_steps: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


class Keeper(Protocol):
    """Gives models: trains them, or takes them from where it keeps what was trained before."""

    progress: Progress

    def model(
        self, name: str, inputs: Mapping[str, Any], build: Callable[[], M], make: Callable[[M], Made]
    ) -> tuple[M, TrainedModel]:
        """A trained model and its record.

        Args:
            name: of the stage.
            inputs: what else the weights depend on.
            build: gives the model as it is before training.
            make: trains it in place.
        """
        ...

    def record(self, name: str, inputs: Mapping[str, Any], kind: type[R], make: Callable[[], R]) -> R:
        """What a stage that trains no model found; `inputs` is what else that depends on."""
        ...


def cpu_seconds() -> float:
    """CPU seconds that this process and its finished children have used."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class StageRunner:
    """Runs the stages of one run and keeps what each cost."""

    def __init__(self, run: RunDirectory, progress: Progress, seed: int, **inputs: Any) -> None:
        self.run, self.progress, self.seed = run, progress, seed
        self._inputs = {**inputs, "seed": seed, "edgekd": edgekd.__version__, "torch": torch.__version__}
        self.costs: list[Stage] = []

    def hash(self, inputs: Mapping[str, Any]) -> str:
        """The hash of a stage's own inputs together with those of every stage (data, seed, versions)."""
        return hash_inputs(**self._inputs, **dict(inputs))

    def cached(self, name: str, inputs: Mapping[str, Any], record_type: type[R]) -> R | None:
        """The record of a stage that need not run again, or None."""
        record = self.run.finished(name, self.hash(inputs), record_type)
        if record is not None:
            self.progress.update(f"{name}: finished before, taken from {self.run.path}")
        return record

    def note(self, name: str, detail: dict[str, Any], wall_s: float = 0.0, cpu_s: float = 0.0) -> None:
        """Keep what a stage cost and found, for the report."""
        self.costs.append(Stage(name=name, wall_s=wall_s, cpu_s=cpu_s, detail=detail))

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Keep what a stage that gives no model cost."""
        started, cpu = time.perf_counter(), cpu_seconds()
        yield
        self.note(name, {}, time.perf_counter() - started, cpu_seconds() - cpu)

    def remark(self, name: str, detail: dict[str, Any]) -> None:
        """Add to what a stage that ran found."""
        for index, stage in enumerate(self.costs):
            if stage.name == name:
                self.costs[index] = stage.model_copy(update={"detail": {**stage.detail, **detail}})

    def model(
        self, name: str, inputs: Mapping[str, Any], build: Callable[[], M], make: Callable[[M], Made]
    ) -> tuple[M, TrainedModel]:
        """As `Keeper` says: from the run where it was trained before with the same inputs."""
        torch.manual_seed(self.seed)
        model = build()
        record = self.cached(name, inputs, TrainedModel)
        if record is None:
            record = made_record(model, make)
            path = self.run.checkpoint(name)
            with self.run.writing(path) as temporary:
                torch.save(model.state_dict(), temporary)
            record = record.model_copy(update={"weights_sha256": hash_file(path)})
            self.run.finish(name, self.hash(inputs), record, [path])
            # Training leaves another memory layout, and with it other roundings. What follows goes on from the very
            # model that a resumed run finds, so that both end bit for bit alike.
            model = build()
        self._restore(name, model)
        detail = record.model_dump(include={"validation_accuracy", "epochs", "steps", "parameters"})
        self.note(name, {**detail, **record.detail}, record.wall_s, record.cpu_s)
        return model, record

    def record(self, name: str, inputs: Mapping[str, Any], kind: type[R], make: Callable[[], R]) -> R:
        """As `Keeper` says: from the run where it was found before with the same inputs."""
        found = self.cached(name, inputs, kind)
        if found is None:
            with self.timed(name):
                found = make()
            self.run.finish(name, self.hash(inputs), found)
        return found

    def _restore(self, name: str, model: nn.Module) -> None:
        load_weights(model, self.run.checkpoint(name), "the run's", f"the {name} it should be", BuildError)
        model.eval()


class Unkept:
    """Trains what it is asked for and keeps nothing."""

    def __init__(self, progress: Progress, seed: int) -> None:
        self.progress, self.seed = progress, seed

    def model(
        self, name: str, inputs: Mapping[str, Any], build: Callable[[], M], make: Callable[[M], Made]
    ) -> tuple[M, TrainedModel]:
        """As `Keeper` says."""
        torch.manual_seed(self.seed)
        model = build()
        return model, made_record(model, make)

    def record(self, name: str, inputs: Mapping[str, Any], kind: type[R], make: Callable[[], R]) -> R:
        """As `Keeper` says."""
        return make()


def made_record(model: M, make: Callable[[M], Made]) -> TrainedModel:
    """Make a model, leave it on the CPU in evaluation mode, and say how it went; its weights are not hashed."""
    started, cpu = time.perf_counter(), cpu_seconds()
    made = make(model)
    model.cpu().eval()
    trained = made.trained
    accuracy = trained.validation_accuracy if trained and made.validation_accuracy is None else made.validation_accuracy
    steps = trained.steps if trained else 0
    return TrainedModel(
        weights_sha256="",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        validation_accuracy=accuracy,
        best_epoch=trained.best_epoch + 1 if trained else 0,
        epochs=trained.epochs if trained else 0,
        steps=steps,
        wall_s=time.perf_counter() - started,
        cpu_s=cpu_seconds() - cpu,
        total_steps=steps if made.total_steps is None else made.total_steps,
        detail=dict(made.detail),
    )
