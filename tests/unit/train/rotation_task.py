"""A task of values: how fast a wrist turns, about two axes, told from the watch's accelerometer alone.

The gyroscope that measured it is not among the inputs. People in one split are in no other.
"""

import numpy as np

from edgekd.records import Training
from edgekd.tasks import Split, Task, Teacher, watch_gestures

AXES = (0, 1)


def load(window: int = 64, step: int = 64, metric: str = "r2") -> Task:
    raw = watch_gestures.load(window, step, step)

    def part(split):
        turning = split.inputs[:, 3:, 0].std(axis=2)[:, AXES]
        return Split(np.ascontiguousarray(split.inputs[:, :3]), np.log(turning + 0.05), split.groups)

    train, validation, test = (part(split) for split in (raw.train, raw.validation, raw.test))
    mean, spread = train.labels.mean(0), train.labels.std(0)

    def standardised(split):
        return Split(split.inputs, ((split.labels - mean) / spread).astype(np.float32), split.groups)

    def teacher():
        from edgekd.tasks.teachers import residual_teacher

        return residual_teacher(3, len(AXES), (16, 32), (1, 7), dropout=0.0)

    return Task(
        name="rotation",
        kind="signal",
        classes=("turning about x", "turning about y"),
        train=standardised(train),
        validation=standardised(validation),
        test=standardised(test),
        teacher=Teacher(teacher, Training(epochs=4, learning_rate=3e-3)),
        preprocessing=raw.preprocessing + "; labels: log of the rotation rate's spread in the window, standardised",
        slices={name: mask for name, mask in raw.slices.items()},
        metric=metric,
        notes=raw.notes,
    )
