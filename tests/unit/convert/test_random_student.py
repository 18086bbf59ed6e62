import pytest
import torch

from edgekd.convert.audit import audit_file
from edgekd.convert.model_file import read_graph
from edgekd.convert.operators import operators_of
from edgekd.convert.random_student import write_random_student
from edgekd.nn.students import Student


@pytest.mark.parametrize("scheme", ["wi8_ai8", "fp32"])
@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_random_student_runs_what_the_trained_one_does(images, tmp_path, scheme, suffix):
    torch.manual_seed(3)
    path = tmp_path / f"random.{suffix}"
    write_random_student(Student(images.architecture), images.inputs[:1], path, scheme)
    assert audit_file(path, scheme).honest
    found, trained = operators_of(read_graph(path)), operators_of(read_graph(images.paths[suffix, scheme]))
    assert [(operator.kind, operator.macs) for operator in found.operators] == [
        (operator.kind, operator.macs) for operator in trained.operators
    ]
