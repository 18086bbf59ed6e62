import pytest
import torch

from edgekd.core.spaces import space_named
from edgekd.nn.students import Student


def build(space, native, outputs, **choices):
    torch.manual_seed(0)
    dimensions = space_named(space).dimensions(native)
    chosen = {name: choices.get(name, values[0]) for name, values in dimensions.items()}
    student = Student(space_named(space).architecture(chosen, native, outputs)).train()
    with torch.no_grad():
        for _ in range(5):
            student(torch.randn(16, *student.architecture.input_shape))
    return student.eval()


@pytest.fixture(scope="module")
def image_student():
    return build("inverted-residual", (1, 28, 28), 10, depth=2, width=8)


@pytest.fixture(scope="module")
def signal_student():
    return build("ds-cnn", (6, 1, 128), 7, kernel=5, depth=2)
