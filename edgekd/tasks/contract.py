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
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """One part of the data.

    Args:
        inputs: (N, channels, height, width) float32, already preprocessed; signals have height 1.
        labels: (N,) int64 class indices.
        groups: optional (N,) ids of what must not be in two splits (a person, a recording).
    """

    inputs: Floats
    labels: Labels
    groups: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Teacher:
    """How to get a teacher: `build` returns a module from (N, C, H, W) to logits (N, classes).

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
        classes: class names; a model's output i is the class `classes[i]`.
        train: what the weights are fitted to.
        validation: what early stopping, selection and tuning look at.
        test: what is reported; nothing is ever decided by it.
        teacher: how to get the teacher.
        preprocessing: in words, what was done to the raw data before it became `inputs`.
        unlabelled: optional (N, C, H, W) float32 without labels.
        slices: optional boolean masks over the test split, by name.
        distill: optional schedule that suits the task; the recipe's own goes over it.
        notes: what a reader of the accuracy must know (how the split was made, licences).
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
        return Development(self.train, self.validation)

    def content_hash(self) -> str:
        """sha256 over the data of all splits and the classes: what a stage's result depends on."""
        digest = hashlib.sha256(repr((self.name, self.kind, self.classes)).encode())
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
