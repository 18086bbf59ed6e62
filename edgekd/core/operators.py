"""The operator list: what a runtime executes for one inference, as numbers.

It comes from a student space's declaration or from a converted file's graph, and is the same either way.
Activations that a runtime fuses into the operator before them (ReLU, ReLU6) and batch norms are not operators.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

OperatorKind = Literal["conv", "pointwise", "depthwise", "dense", "add", "pool", "other"]
BYTES_PER_ELEMENT = {
    **{"fp32": 4, "fp16": 2, "wi8": 4, "wi8_ai16": 2},
    **dict.fromkeys(("wi8_ai8", "wi8_ai8_mixed", "wi8_ai8_symmetric"), 1),
}


class Operator(NamedTuple):
    """One executed operator. `inputs` and `output` name activation tensors; weights are counted, not named.

    `kind`: `conv` (any convolution that is neither of the next two), `pointwise` (1x1, one group), `depthwise`
    (as many groups as input channels), `dense`, `add`, `pool` (global or windowed), or `other`. `taps`: height times
    width of a convolution's kernel.
    """

    name: str
    kind: OperatorKind
    macs: int
    weights: int
    biases: int
    inputs: tuple[str, ...]
    output: str
    taps: int = 1


@dataclass(frozen=True, slots=True)
class OperatorList:
    """Operators in execution order; `tensors` maps each activation tensor's name to its number of elements."""

    operators: tuple[Operator, ...]
    tensors: dict[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(operator.macs for operator in self.operators)

    @property
    def parameters(self) -> int:
        """Weights and biases, after batch norms are folded."""
        return sum(operator.weights + operator.biases for operator in self.operators)

    def elements_moved(self, operator: Operator) -> int:
        """Activation elements read and written, and weights read, by one operator."""
        elements = self.tensors[operator.output] + operator.weights
        for name in operator.inputs:
            elements += self.tensors[name]
        return elements

    def weight_bytes(self, scheme: str) -> int:
        """Bytes of weights and biases in a file of that scheme (biases take 4 bytes where weights are int8)."""
        weights = sum(operator.weights for operator in self.operators)
        biases = sum(operator.biases for operator in self.operators)
        if scheme in ("fp32", "fp16"):
            return (weights + biases) * BYTES_PER_ELEMENT[scheme]
        return weights + 4 * biases

    def peak_live_elements(self) -> int:
        """Most activation elements alive at once, each tensor living from its producer to its last consumer."""
        born = dict.fromkeys(self.inputs, 0)
        last_alive = dict(born)
        for step, operator in enumerate(self.operators):
            for name in operator.inputs:
                last_alive[name] = step
            born.setdefault(operator.output, step)
            last_alive.setdefault(operator.output, step)
        for name in self.outputs:
            last_alive[name] = len(self.operators)
        changes = [0] * (len(self.operators) + 2)
        for name, step in born.items():
            changes[step] += self.tensors[name]
            changes[last_alive[name] + 1] -= self.tensors[name]
        return max(accumulate(changes))

    def counts(self) -> Counter[str]:
        """How many operators there are of each kind."""
        return Counter(operator.kind for operator in self.operators)


def features(operators: OperatorList, scheme: str) -> dict[str, float]:
    """Cost features by name: `macs.KIND` (millions), `bytes.KIND` (millions moved) and `count.KIND`."""
    totals: dict[str, list[int]] = {}
    for operator in operators.operators:
        total = totals.setdefault(operator.kind, [0, 0, 0])
        total[0] += operator.macs
        total[1] += operators.elements_moved(operator)
        total[2] += 1
    size = BYTES_PER_ELEMENT[scheme]
    values: dict[str, float] = {}
    for kind, (macs, elements, count) in totals.items():
        values[f"macs.{kind}"] = macs / 1e6
        values[f"bytes.{kind}"] = elements * size / 1e6
        values[f"count.{kind}"] = float(count)
    return values
