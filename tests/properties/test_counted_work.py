"""MACs and parameters from the declaration equal those counted in the written .tflite, for sampled students."""

import pytest

from edgekd.core.architecture import operator_list
from edgekd.core.sampled_students import sampled_students


@pytest.mark.parametrize("student", sampled_students(8, 11), ids=lambda student: student.label)
def test_the_written_file_holds_the_declared_work(student, tmp_path):
    pytest.importorskip("torch")
    from edgekd.convert.model_file import read_graph
    from edgekd.convert.operators import operators_of
    from edgekd.convert.random_student import write_random_student
    from edgekd.nn.students import Student, example_input

    architecture = student.architecture()
    path = tmp_path / "student.tflite"
    write_random_student(Student(architecture).eval(), example_input(architecture), path)
    found, declared = operators_of(read_graph(path)), operator_list(architecture)
    assert [one.kind for one in found.operators] == [one.kind for one in declared.operators]
    assert [one.macs for one in found.operators] == [one.macs for one in declared.operators]
    assert found.parameters == declared.parameters
    assert found.peak_live_elements() == declared.peak_live_elements()
