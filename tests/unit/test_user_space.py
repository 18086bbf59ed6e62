"""A user's own student space: costed from its graph, searched like any other, and clear about what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from edgekd.core.architecture import operator_list  # noqa: E402
from edgekd.core.propose import propose  # noqa: E402
from edgekd.core.search import Search  # noqa: E402
from edgekd.errors import ConfigurationError, InfeasibleBudgetError  # noqa: E402
from edgekd.load import load_profile  # noqa: E402
from edgekd.nn.students import Student, example_input  # noqa: E402
from edgekd.pipeline.fitting.user_space import anchored_space, is_reference, source_of, space_of  # noqa: E402
from edgekd.records import Budget  # noqa: E402

FILE = Path(__file__).resolve().parents[1] / "user_spaces.py"
NATIVE = (1, 8, 8)
HOST = load_profile("host")


def declared(name):
    return space_of(f"{FILE}:{name}")


def test_its_operators_are_those_of_the_file_it_becomes_and_counts_are_torchs(tmp_path):
    from edgekd.convert.model_file import read_graph
    from edgekd.convert.operators import operators_of
    from edgekd.convert.random_student import write_random_student

    architecture = declared("space").architecture({"width": 16, "depth": 2}, NATIVE, 10)
    operators = operator_list(architecture)
    student = Student(architecture).eval()
    assert student(example_input(architecture)).shape == (1, 10)
    # Batch norms are folded: a bias for each channel, where the module has scale, shift and two statistics.
    assert operators.parameters == 16 * 9 + 16 + 16 * 16 * 9 + 16 + 16 * 10 + 10
    assert operators.macs == 16 * (9 * 16 + 16 * 9 * 16) + 160
    for name in ("student.tflite", "student.onnx"):
        write_random_student(student, example_input(architecture), tmp_path / name)
        written = operators_of(read_graph(tmp_path / name))
        assert [(one.kind, one.macs, one.weights) for one in written.operators] == [
            (one.kind, one.macs, one.weights) for one in operators.operators
        ]


def test_the_chosen_input_shape_is_what_the_student_takes():
    space = declared("smaller")
    small, native = (space.architecture({"width": 8, "depth": 1, "side": side}, NATIVE, 10) for side in (6, 8))
    assert small.input_shape == (1, 6, 6)
    assert operator_list(small).macs < operator_list(native).macs


def test_it_is_proposed_and_searched_under_the_budget_like_any_other():
    space, budget = declared("space"), Budget(latency_p90_ms=1.0, file_size_kib=6.0)
    found = propose(space, NATIVE, 10, HOST, budget, {}, 3)
    assert 0 < len(found.feasible) < found.considered == 4
    search = Search(space.dimensions(NATIVE), found.feasible, 0)
    asked = search.ask(4)
    assert {candidate.label for candidate in asked} == {candidate.label for candidate in found.feasible}
    with pytest.raises(InfeasibleBudgetError, match="nearest: width=8 depth=1"):
        propose(space, NATIVE, 10, HOST, Budget(file_size_kib=0.5), {}, 3)
    assert {one.choices["width"] for one in propose(space, NATIVE, 10, HOST, budget, {"width": 8}, 3).feasible} == {8}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", r"fails with width=16, depth=1: build raised:\n.*user_spaces.py:\d+ in odd_width_fails.*\n.*sixteen"),
        ("no_module", "with width=8, depth=1: build gave a str, no torch module"),
        ("wrong_logits", r"with width=8, depth=1: for one input \(1, 1, 8, 8\) the module gave \(1, 11\)"),
        ("no_int8_form", "with width=8, depth=1: no form is known for"),
        ("wrong_shape", r"with width=8, depth=1: input_shape gave \(3, 3\)"),
        ("nothing_to_choose", "dimensions must map"),
        ("no_numbers", "dimension 'width' must list whole numbers"),
        ("twice", "lists a value twice"),
        ("too_many", "10000 combinations"),
        ("not_a_space", "has no edgekd.tasks.Space 'not_a_space'; it has: .*space"),
        ("absent", "has no edgekd.tasks.Space 'absent'"),
    ],
)
def test_what_is_wrong_is_said_with_the_choices_that_bring_it_up(name, message):
    with pytest.raises(ConfigurationError, match=message):
        propose(declared(name), NATIVE, 10, HOST, Budget(latency_p90_ms=1.0), {}, 3)


def test_references_that_are_none_are_refused_and_paths_are_anchored(tmp_path):
    with pytest.raises(ConfigurationError, match="does not exist"):
        space_of(str(tmp_path / "nowhere.py:space"))
    with pytest.raises(ConfigurationError, match="wanted is FILE.py:NAME"):
        space_of(str(FILE))
    broken = tmp_path / "broken.py"
    broken.write_text("import edgekd\nraise RuntimeError('not today')\n")
    with pytest.raises(ConfigurationError, match=r"raised while it was read:\n.*broken.py:2"):
        space_of(f"{broken}:space")
    with pytest.raises(ConfigurationError, match="there is no space 'ds-cmm'"):
        space_of("ds-cmm")
    assert anchored_space("mine.py:space", tmp_path) == f"{tmp_path}/mine.py:space"
    assert anchored_space("ds-cnn", tmp_path) == "ds-cnn"
    assert not is_reference("ds-cnn")


def test_a_changed_file_makes_other_stages(tmp_path):
    path = tmp_path / "mine.py"
    text = FILE.read_text()
    path.write_text(text)
    before = source_of(space_of(f"{path}:space"))
    path.write_text(text + "\n# changed\n")
    assert source_of(space_of(f"{path}:space")) != before
    assert source_of(space_of("ds-cnn")) == {}
