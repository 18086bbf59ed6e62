"""A small real task that trains in a second: handwritten digits of scikit-learn, 8x8 pixels, 1,797 of them."""

import numpy as np
from sklearn.datasets import load_digits

from edgekd.records import Distillation, Recipe, StudentChoice, TaskChoice, Training
from edgekd.tasks import Split, Task, Teacher

SHAPE = {"width": 4, "depth": 1, "expansion": 2, "kernel": 3, "stem_stride": 1}


class Quiet:
    """Keeps what a pipeline says."""

    def __init__(self):
        self.warnings = []

    def stage(self, name, detail=""):
        pass

    def update(self, message):
        pass

    def warn(self, message):
        self.warnings.append(message)


def load():
    raw = load_digits()
    # Duplicates would let one picture stand in two splits.
    _, first = np.unique(raw.images.reshape(len(raw.images), -1), axis=0, return_index=True)
    order = np.random.default_rng(0).permutation(np.sort(first))
    inputs = (raw.images[order, None] / 8 - 1).astype(np.float32)
    labels, writers = raw.target[order].astype(np.int64), order // 450

    def part(a, b):
        return Split(inputs[a:b], labels[a:b])

    def teacher():
        from edgekd.tasks.teachers import residual_teacher

        return residual_teacher(1, 10, (8, 16), (3, 3), dropout=0.1)

    train = Split(inputs[:900], labels[:900], np.array([f"writer {w}" for w in writers[:900]]))
    return Task(
        name="digits",
        kind="image",
        classes=tuple("0123456789"),
        train=train,
        validation=part(900, 1300),
        test=part(1300, 1790),
        teacher=Teacher(teacher, Training(epochs=5, learning_rate=3e-3)),
        preprocessing="pixels / 8 - 1",
        slices={"even": labels[1300:1790] % 2 == 0},
    )


def recipe(epochs=4, **distill):
    training = Training(epochs=epochs, learning_rate=1e-2, batch_size=32, ema_decay=0.9)
    return Recipe(
        task=TaskChoice(name="digits"),
        student=StudentChoice(fixed=SHAPE),
        teacher=load().teacher.training,
        distill=Distillation(training=training, **distill),
    )
