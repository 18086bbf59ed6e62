"""Students of the real spaces, trained for seconds on patterns in noise, converted once a session."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from edgekd.convert.students import convert_student
from edgekd.core.spaces import space_named
from edgekd.nn.quantized.model import quantize_model
from edgekd.nn.students import Student

NAMES = {
    ("tflite", "wi8_ai8"): "student.tflite",
    ("onnx", "wi8_ai8"): "student.onnx",
    ("tflite", "fp32"): "student_fp32.tflite",
    ("onnx", "fp32"): "student_fp32.onnx",
}


def patterns(shape, classes, count, seed):
    """Inputs (count, *shape) of `classes` fixed smooth patterns in noise, with their labels."""
    coarse = torch.randn(
        classes, shape[0], max(shape[1] // 4, 1), shape[2] // 4, generator=torch.Generator().manual_seed(9)
    )
    smooth = F.interpolate(coarse, size=shape[1:], mode="bilinear")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return smooth[labels] + 0.6 * torch.randn(count, *shape, generator=generator), labels


def fit(model, inputs, labels, steps, rate):
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    model.train()
    for step in range(steps):
        chosen = torch.randint(0, len(inputs), (64,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
        optimizer.step()
    return model.eval()


def make(directory, space, native, classes, **choices):
    torch.manual_seed(0)
    chosen = {name: choices.get(name, values[0]) for name, values in space_named(space).dimensions(native).items()}
    architecture = space_named(space).architecture(chosen, native, classes)
    inputs, labels = patterns(architecture.input_shape, classes, 1000, seed=1)
    student = fit(Student(architecture), inputs, labels, 60, 3e-3)
    quantized = quantize_model(student, inputs)
    quantized.calibrate(inputs.split(64))
    fit(quantized, inputs, labels, 15, 3e-4)
    quantized.freeze()
    fit(quantized, inputs, labels, 10, 3e-4)
    artifacts = convert_student(student, quantized, inputs[:1], directory, NAMES, parent="a" * 64)
    held_out, _ = patterns(architecture.input_shape, classes, 500, seed=2)
    return SimpleNamespace(
        directory=directory,
        architecture=architecture,
        student=student,
        quantized=quantized,
        network=quantized.network(),
        artifacts={(entry.format, entry.scheme): entry for entry in artifacts},
        paths={key: directory / name for key, name in NAMES.items()},
        inputs=held_out,
    )


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    native = (1, 28, 28)
    return make(tmp_path_factory.mktemp("images"), "inverted-residual", native, 10, depth=2, width=8, expansion=3)


@pytest.fixture(scope="session")
def signals(tmp_path_factory):
    return make(tmp_path_factory.mktemp("signals"), "ds-cnn", (6, 1, 128), 7, depth=3, width=16, kernel=5)


@pytest.fixture(params=["images", "signals"])
def converted(request):
    return request.getfixturevalue(request.param)
