"""`watch-gestures`: seven shoulder exercises from a smartwatch's accelerometer and gyroscope.

The recordings ship inside the PyPI package seglearn (BSD licence; Burns et al. 2018, arXiv:1802.01489).
"""

from __future__ import annotations

import numpy as np

from edgekd.errors import ConfigurationError, MissingExtraError
from edgekd.records import Training
from edgekd.tasks.contract import Floats, Split, Task, Teacher

VALIDATION_SUBJECTS = (6, 7)
TEST_SUBJECTS = (8, 9, 10)


def load(window: int = 128, train_step: int = 32, evaluation_step: int = 64) -> Task:
    """The task, split by subject, so that nobody is in two splits.

    Args:
        window: samples in one input (50 Hz).
        train_step: samples between the starts of neighbouring training windows.
        evaluation_step: the same for validation and test.

    Raises:
        ConfigurationError: a window or step that leaves no data.
    """
    if window < 16 or train_step < 1 or evaluation_step < 1:
        raise ConfigurationError(
            f"task watch-gestures: window {window} must be at least 16, "
            f"steps {train_step} and {evaluation_step} at least 1"
        )
    try:
        from seglearn.datasets import load_watch
    except ImportError as error:
        raise MissingExtraError(error.name or "seglearn", "fit") from error
    raw = load_watch()
    subjects = np.asarray(raw["subject"], dtype=np.int64)
    held_out = (*VALIDATION_SUBJECTS, *TEST_SUBJECTS)

    def windows(chosen: np.ndarray, step: int) -> Split:
        inputs: list[Floats] = []
        labels: list[int] = []
        groups: list[int] = []
        for index in np.flatnonzero(chosen):
            recording = np.asarray(raw["X"][index], dtype=np.float32)
            for start in range(0, len(recording) - window + 1, step):
                inputs.append(recording[start : start + window].T[:, None, :])
                labels.append(int(raw["y"][index]))
                groups.append(int(subjects[index]))
        return Split(np.stack(inputs), np.asarray(labels, dtype=np.int64), np.asarray(groups))

    train = windows(~np.isin(subjects, held_out), train_step)
    validation = windows(np.isin(subjects, VALIDATION_SUBJECTS), evaluation_step)
    test = windows(np.isin(subjects, TEST_SUBJECTS), evaluation_step)
    mean = train.inputs.mean(axis=(0, 2, 3), keepdims=True)
    spread = train.inputs.std(axis=(0, 2, 3), keepdims=True)

    def normalised(split: Split) -> Split:
        return Split(((split.inputs - mean) / spread).astype(np.float32), split.labels, split.groups)

    def teacher() -> object:
        from edgekd.tasks.teachers import residual_teacher

        return residual_teacher(6, len(raw["y_labels"]), (48, 64, 96), (1, 7), dropout=0.3)

    return Task(
        name="watch-gestures",
        kind="signal",
        classes=tuple(str(name) for name in raw["y_labels"]),
        train=normalised(train),
        validation=normalised(validation),
        test=normalised(test),
        teacher=Teacher(teacher, Training(epochs=12, learning_rate=2e-3, patience=12)),  # type: ignore[arg-type]
        preprocessing=f"windows of {window} samples, channels standardised with the training split's mean and spread",
        slices={f"subject {subject}": np.asarray(test.groups == subject) for subject in TEST_SUBJECTS},
        notes=(
            f"split by subject: validation {VALIDATION_SUBJECTS}, test {TEST_SUBJECTS}, the other five train",
            f"test windows overlap by {max(0, window - evaluation_step)} of {window} samples and come from three "
            "people: intervals count windows as independent and are therefore narrower than the truth for new people",
        ),
    )
