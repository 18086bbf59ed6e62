from hypothesis import given
from hypothesis import strategies as st

from edgekd.core.operators import Operator, OperatorList


@st.composite
def chains(draw):
    sizes = draw(st.lists(st.integers(1, 1000), min_size=2, max_size=8))
    names = [f"t{index}" for index in range(len(sizes))]
    operators = tuple(Operator(f"op{i}", "other", 0, 0, 0, (names[i],), names[i + 1]) for i in range(len(sizes) - 1))
    return OperatorList(operators, dict(zip(names, sizes, strict=True)), (names[0],), (names[-1],)), sizes


@given(chains())
def test_a_chain_needs_only_each_operators_input_and_output(chain):
    operators, sizes = chain
    assert operators.peak_live_elements() == max(a + b for a, b in zip(sizes, sizes[1:], strict=False))


@given(chains(), st.integers(1, 1000))
def test_a_tensor_used_again_at_the_end_lives_all_along(chain, size):
    operators, sizes = chain
    first, last = operators.inputs[0], operators.outputs[0]
    add = Operator("add", "add", 0, 0, 0, (first, last), "sum")
    longer = OperatorList((*operators.operators, add), {**operators.tensors, "sum": size}, (first,), ("sum",))
    middle = [a + b for a, b in zip(sizes[1:], sizes[2:], strict=False)]
    expected = max([sizes[0] + sizes[1], sizes[0] + sizes[-1] + size] + [sizes[0] + pair for pair in middle])
    assert longer.peak_live_elements() == expected
