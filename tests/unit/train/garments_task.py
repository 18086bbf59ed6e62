"""A task of independent labels: three attributes of a garment, of which several or none may hold."""

import numpy as np

from edgekd.records import Training
from edgekd.tasks import Split, Task, Teacher, fashion_mnist

ATTRIBUTES = {
    "long sleeves": ("Pullover", "Coat", "Shirt"),
    "worn above the waist": ("T-shirt", "Pullover", "Dress", "Coat", "Shirt"),
    "footwear": ("Sandal", "Sneaker", "Ankle boot"),
}


def load(images: int = 1200, metric: str | None = None) -> Task:
    raw = fashion_mnist.load(train_images=images)
    holds = np.array([[name in garments for garments in ATTRIBUTES.values()] for name in raw.classes])

    def part(split, count):
        # Every second pixel: a quarter of the time.
        return Split(np.ascontiguousarray(split.inputs[:count, :, ::2, ::2]), holds[split.labels[:count]])

    def teacher():
        from edgekd.tasks.teachers import residual_teacher

        return residual_teacher(1, len(ATTRIBUTES), (8, 16), (3, 3), dropout=0.0)

    return Task(
        name="garments",
        kind="image",
        classes=tuple(ATTRIBUTES),
        train=part(raw.train, images),
        validation=part(raw.validation, 400),
        test=part(raw.test, 600),
        teacher=Teacher(teacher, Training(epochs=4, learning_rate=3e-3)),
        preprocessing=raw.preprocessing + "; every second pixel",
        metric=metric,
    )
