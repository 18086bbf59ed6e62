"""Finds what is wrong with a task's data before anything is trained on it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from edgekd.errors import ConfigurationError
from edgekd.tasks.contract import METRICS_OF, Split, Task


def check_task(task: Task) -> None:
    """Refuse a task whose data cannot be trained on or whose splits are not apart.

    Raises:
        ConfigurationError: with every problem found, one a line.
    """
    problems = list(_problems(task))
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ConfigurationError(f"task {task.name}: the data cannot be used:\n{listed}")


def _problems(task: Task) -> Iterator[str]:
    splits = {"train": task.train, "validation": task.validation, "test": task.test}
    outputs = task.train.outputs if isinstance(task.train, Split) else "classes"
    least = 2 if outputs == "classes" else 1
    if len(task.classes) < least:
        yield f"classes: {len(task.classes)} given, at least {least} are needed"
    if task.metric is not None and task.metric not in METRICS_OF[outputs]:
        yield f"metric: {task.metric!r} is none for outputs that are {outputs}: use {' or '.join(METRICS_OF[outputs])}"
    for name, split in splits.items():
        yield from _split_problems(name, split, task)
    for name, mask in task.slices.items():
        if mask.shape != (len(task.test),) or mask.dtype != np.bool_:
            found = f"{mask.dtype}{mask.shape}"
            yield f"slices.{name}: must be a boolean mask over the {len(task.test)} test inputs, is {found}"
    for (first, one), (second, other) in itertools.combinations(splits.items(), 2):
        yield from _overlaps(first, one, second, other)


def _split_problems(name: str, split: Split, task: Task) -> Iterator[str]:
    if not isinstance(split, Split):
        yield f"{name}: must be an edgekd.tasks.Split, is {type(split).__name__}"
        return
    if len(split) == 0:
        yield f"{name}: is empty"
        return
    if split.inputs.ndim != 4:
        yield f"{name}.inputs: must be (N, channels, height, width), is {split.inputs.shape}"
    elif split.inputs.shape[1:] != task.train.inputs.shape[1:]:
        yield f"{name}.inputs: shape {split.inputs.shape[1:]} differs from train's {task.train.inputs.shape[1:]}"
    if split.inputs.dtype != np.float32:
        yield f"{name}.inputs: must be float32, is {split.inputs.dtype}: convert it after preprocessing"
    elif not np.isfinite(split.inputs).all():
        index = int(np.argwhere(~np.isfinite(split.inputs).reshape(len(split), -1).all(axis=1))[0][0])
        bad = int((~np.isfinite(split.inputs)).sum())
        yield f"{name}.inputs: {bad} values are NaN or infinite, first in input {index}"
    yield from _label_problems(name, split, task)


def _label_problems(name: str, split: Split, task: Task) -> Iterator[str]:
    if task.train.labels.ndim == 2:
        yield from _column_problems(name, split, task)
    elif split.labels.shape != (len(split),):
        yield f"{name}.labels: must be ({len(split)},), is {split.labels.shape}"
    elif not np.issubdtype(split.labels.dtype, np.integer):
        yield (
            f"{name}.labels: must be integers, is {split.labels.dtype}; independent labels are (N, K) bool, values to "
            "regress (N, K) float32"
        )
    elif split.labels.min() < 0 or split.labels.max() >= len(task.classes):
        wrong = split.labels[(split.labels < 0) | (split.labels >= len(task.classes))]
        yield f"{name}.labels: {int(wrong[0])} is out of range 0..{len(task.classes) - 1} ({len(wrong)} such labels)"


def _column_problems(name: str, split: Split, task: Task) -> Iterator[str]:
    wanted, labels = (len(split), len(task.classes)), split.labels
    if labels.shape != wanted:
        yield f"{name}.labels: must be {wanted}, one column for each of {', '.join(task.classes)}, is {labels.shape}"
        return
    if labels.dtype not in (np.bool_, np.float32) or labels.dtype != task.train.labels.dtype:
        yield (
            f"{name}.labels: is {labels.dtype} and train's {task.train.labels.dtype}: independent labels are (N, K) "
            "bool in every split, values to regress (N, K) float32"
        )
        return
    if not np.isfinite(labels).all():
        yield f"{name}.labels: {int((~np.isfinite(labels)).sum())} values are NaN or infinite"
        return
    for column, output in zip(labels.T, task.classes, strict=True):
        if (column == column[0]).all():
            yield f"{name}.labels: {output!r} is {column[0]} for all {len(split)} inputs: nothing can be judged by it"
        elif name == "train" and labels.dtype == np.float32 and not 0.01 <= column.std() <= 100:
            yield (
                f"{name}.labels: {output!r} has a spread of {column.std():.3g}: standardise it, (y - mean) / spread of "
                "the training split, and say so in `preprocessing`"
            )


def _overlaps(first: str, one: Split, second: str, other: Split) -> Iterator[str]:
    if not (isinstance(one, Split) and isinstance(other, Split)) or len(one) == 0 or len(other) == 0:
        return
    if one.groups is not None and other.groups is not None:
        shared = sorted({str(group) for group in one.groups} & {str(group) for group in other.groups})
        if shared:
            yield f"{first} and {second} share the groups {', '.join(shared[:5])}: a group must be in one split only"
    rows = {row.tobytes() for row in np.ascontiguousarray(one.inputs)}
    same = [index for index, row in enumerate(np.ascontiguousarray(other.inputs)) if row.tobytes() in rows]
    if same:
        yield (
            f"{first} and {second} overlap: {len(same)} of {second}'s inputs are in {first} too, "
            f"first {second}[{same[0]}]: remove them from one of the two"
        )
