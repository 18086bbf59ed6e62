"""A user's task: handwritten digits of scikit-learn, 8x8 pixels; trains in seconds."""

import numpy as np
from sklearn.datasets import load_digits
from torch import nn

from edgekd.records import Training
from edgekd.tasks import Split, Task, Teacher


def load(teacher_epochs: int = 4) -> Task:
    """The task, the last 540 images being the test split."""
    raw = load_digits()
    images = (raw.images[:, None] / 16).astype(np.float32)
    labels = raw.target.astype(np.int64)
    train, validation, test = (
        Split(images[part], labels[part]) for part in (slice(900), slice(900, 1257), slice(1257, None))
    )

    def teacher() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 10),
        )

    return Task(
        name="digits",
        kind="image",
        classes=tuple("0123456789"),
        train=train,
        validation=validation,
        test=test,
        teacher=Teacher(teacher, Training(epochs=teacher_epochs, learning_rate=5e-3)),
        preprocessing="pixels / 16",
    )
