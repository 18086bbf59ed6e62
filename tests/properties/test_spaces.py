"""The two faces of a student space agree: the declaration, and the torch module built from it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.core.architecture import operator_list
from edgekd.core.spaces import SPACES, every_choice

NATIVE = {"ds-cnn": (6, 1, 128), "inverted-residual": (1, 28, 28)}


@st.composite
def students(draw):
    name = draw(st.sampled_from(sorted(SPACES)))
    native = NATIVE[name]
    choices = {key: draw(st.sampled_from(values)) for key, values in SPACES[name].dimensions(native).items()}
    return name, choices, draw(st.integers(2, 12))


@settings(max_examples=25, deadline=None)
@given(students())
def test_operators_macs_and_parameters_equal_those_of_the_torch_module(student):
    import torch
    from torch import nn

    from edgekd.nn.students import Student, example_input

    name, choices, outputs = student
    architecture = SPACES[name].architecture(choices, NATIVE[name], outputs)
    declared = operator_list(architecture)
    module = Student(architecture).eval()
    macs, elements = [], []

    def count(layer, inputs, output):
        elements.append(output[0].numel())
        kernel = layer.weight[0].numel()
        macs.append(kernel * output[0].numel())

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        assert module(example_input(architecture)).shape == (1, outputs)
    weighted = [operator for operator in declared.operators if operator.weights]
    assert [operator.macs for operator in weighted] == macs
    assert [declared.tensors[operator.output] for operator in weighted] == elements
    folded_norms = sum(layer.num_features for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    parameters = sum(parameter.numel() for parameter in module.parameters())
    # A folded batch norm leaves one bias a channel of its two parameters.
    assert declared.parameters == parameters - folded_norms


GROWING = [
    (name, dimension)
    for name in sorted(SPACES)
    for dimension in SPACES[name].dimensions(NATIVE[name])
    if dimension != "stem_stride"
]


@pytest.mark.parametrize(("name", "dimension"), GROWING)
def test_macs_and_parameters_never_fall_as_a_dimension_grows(name, dimension):
    space, native = SPACES[name], NATIVE[name]
    dimensions = space.dimensions(native)
    others = {key: values[len(values) // 2] for key, values in dimensions.items()}
    lists = [
        operator_list(space.architecture({**others, dimension: value}, native, 7))
        for value in sorted(dimensions[dimension])
    ]
    assert all(a.macs <= b.macs for a, b in zip(lists, lists[1:], strict=False))
    assert all(a.parameters <= b.parameters for a, b in zip(lists, lists[1:], strict=False))
    assert lists[0].macs < lists[-1].macs


@pytest.mark.parametrize("name", sorted(SPACES))
def test_every_choice_enumerates_the_whole_space_once(name):
    space, native = SPACES[name], NATIVE[name]
    expected = 1
    for values in space.dimensions(native).values():
        expected *= len(values)
    seen = {tuple(choices.items()) for choices in every_choice(space, native, {})}
    assert len(seen) == expected
