"""The Task contract: what a user brings so that edgekd can distil for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.records import Training

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float32]
Labels = NDArray[np.int64] | NDArray[np.bool_] | NDArray[np.float32]

Outputs = Literal["classes", "multi_label", "regression"]
MetricName = Literal["accuracy", "f1", "label_accuracy", "average_precision", "r2", "mae"]
METRICS_OF: Mapping[Outputs, tuple[MetricName, ...]] = {
    "classes": ("accuracy",),
    "multi_label": ("f1", "label_accuracy", "average_precision"),
    "regression": ("r2", "mae"),
}
"""By what a model is judged; the first is taken where the task names none. All but `mae` are better when higher."""


@dataclass(frozen=True, eq=False)
class Split:
    """One part of the data.

    The labels' form says what the outputs are: one of K classes, K independent labels, or K values.

    Args:
        inputs: (N, channels, height, width) float32, already preprocessed; signals have height 1.
        labels: (N,) int64 class indices; (N, K) bool for independent labels; (N, K) float32 for values, which are
            best standardised: the loss and the learning rates suppose a spread of about 1.
        groups: optional (N,) ids of what must not be in two splits (a person, a recording).
    """

    inputs: Floats
    labels: Labels
    groups: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def part(self, rows: NDArray[Any]) -> Split:
        """The inputs of these rows (an index or a mask), with their labels and groups."""
        groups = None if self.groups is None else self.groups[rows]
        return Split(self.inputs[rows], self.labels[rows], groups)

    @property
    def outputs(self) -> Outputs:
        """What the labels' form says that the outputs are."""
        if self.labels.ndim == 1:
            return "classes"
        return "multi_label" if self.labels.dtype == np.bool_ else "regression"


@dataclass(frozen=True)
class Teacher:
    """How to get a teacher: `build` returns a module from (N, C, H, W) to logits or values (N, outputs).

    `training` is its schedule; None means that `build` returns it trained already.
    """

    build: Callable[[], nn.Module]
    training: Training | None


@dataclass(frozen=True, eq=False)
class Task:
    """Data, classes, teacher.

    Args:
        name: short name, used in directory names.
        kind: `signal` (height 1, convolved along time) or `image`; decides the default student space.
        classes: names of the outputs; a model's output i is the class, label or value `classes[i]`.
        train: what the weights are fitted to.
        validation: what early stopping, selection and tuning look at.
        test: what is reported; nothing is ever decided by it.
        teacher: how to get the teacher.
        preprocessing: in words, what was done to the raw data before it became `inputs`.
        unlabelled: optional (N, C, H, W) float32 without labels.
        slices: optional boolean masks over the test split, by name.
        distill: optional schedule that suits the task; the recipe's own goes over it.
        notes: what a reader of the accuracy must know (how the split was made, licences).
        metric: by what models are judged, of `METRICS_OF`; None takes the first for the kind of outputs.
    """

    name: str
    kind: Literal["signal", "image"]
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    teacher: Teacher
    preprocessing: str
    unlabelled: Floats | None = None
    slices: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    distill: Training | None = None
    notes: tuple[str, ...] = ()
    metric: MetricName | None = None

    @property
    def outputs(self) -> Outputs:
        """What the outputs are, by the form of the labels."""
        return self.train.outputs

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one input."""
        channels, height, width = self.train.inputs.shape[1:]
        return channels, height, width

    @property
    def default_space(self) -> str:
        """The student space that suits this kind of task."""
        return "ds-cnn" if self.kind == "signal" else "inverted-residual"

    def development(self) -> Development:
        """The splits that decisions may read."""
        return Development(self.train, self.validation, metric=self.metric)

    def content_hash(self) -> str:
        """sha256 over the data of all splits and the classes: what a stage's result depends on."""
        digest = hashlib.sha256(repr((self.name, self.kind, self.classes, *filter(None, [self.metric]))).encode())
        for split in (self.train, self.validation, self.test):
            digest.update(repr(split.inputs.shape).encode())
            digest.update(np.ascontiguousarray(split.inputs).data)
            digest.update(np.ascontiguousarray(split.labels).data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Development:
    """All that training, early stopping, calibration and selection are given: there is no test split here to read."""

    train: Split
    validation: Split
    metric: MetricName | None = field(default=None, kw_only=True)


def student_inputs(inputs: Floats, shape: tuple[int, int, int]) -> Floats:
    """Inputs as a student of another window or resolution sees them.

    Args:
        inputs: (N, C, H, W) float32 at the task's own size.
        shape: (C, height, width) the student takes.

    Returns:
        (N, C, height, width) float32: the last `width` samples of a signal (height 1), or an antialiased
        bilinear resize of an image.
    """
    if inputs.shape[1:] == shape:
        return inputs
    channels, height, width = shape
    if inputs.shape[2] == height == 1:
        return np.ascontiguousarray(inputs[:, :, :, -width:])
    import torch
    import torch.nn.functional as functional

    resized = functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(inputs)), (height, width), mode="bilinear", antialias=True
    )
    return np.asarray(resized.numpy(), dtype=np.float32)
