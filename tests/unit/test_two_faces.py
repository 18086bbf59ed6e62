"""A student's declaration says what its converted files hold, operator by operator."""

import pytest

from edgekd.core.architecture import operator_list
from edgekd.core.spaces import SPACES

STUDENTS = [
    ("ds-cnn", (6, 1, 128), {"window": 96, "stem_stride": 2, "kernel": 9, "width": 24, "depth": 4}),
    (
        "inverted-residual",
        (1, 28, 28),
        {"resolution": 22, "stem_stride": 2, "kernel": 5, "width": 8, "depth": 2, "expansion": 3},
    ),
]


@pytest.mark.parametrize(("space", "native", "choices"), STUDENTS)
def test_the_files_hold_the_declared_operators(space, native, choices, tmp_path):
    import torch

    from edgekd.convert.model_file import read_graph
    from edgekd.convert.operators import operators_of
    from edgekd.convert.students import convert_student
    from edgekd.nn.quantized.model import quantize_model
    from edgekd.nn.students import Student, example_input

    architecture = SPACES[space].architecture(choices, native, 7)
    student = Student(architecture).eval()
    quantized = quantize_model(student, example_input(architecture))
    quantized.calibrate([torch.randn(16, *architecture.input_shape)])
    names = {("tflite", "wi8_ai8"): "s.tflite", ("onnx", "wi8_ai8"): "s.onnx"}
    artifacts = convert_student(student, quantized.eval(), example_input(architecture), tmp_path, names)
    declared = operator_list(architecture)
    for artifact in artifacts:
        found = operators_of(read_graph(tmp_path / artifact.path))
        assert [operator.kind for operator in found.operators] == [operator.kind for operator in declared.operators]
        assert [operator.macs for operator in found.operators] == [operator.macs for operator in declared.operators]
        assert found.parameters == declared.parameters
        assert found.peak_live_elements() == declared.peak_live_elements()
