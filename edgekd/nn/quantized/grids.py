"""Which tensors share a grid: decided once, from the operations, before any value is seen."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgekd.nn.quantized.layers import LAYERS
from edgekd.nn.quantized.network import Activation, Grid
from edgekd.nn.quantized.operations import Trace


@dataclass
class SharedGrid:
    """One grid. `members` are the tensors whose values set its range; `tensors` are all that lie on it."""

    activation: Activation
    fixed: Grid | None = None
    members: list[str] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)


def shared_grids(trace: Trace) -> list[SharedGrid]:
    """The grids of a trace's tensors, the input's first.

    Values that are only moved or averaged stay on their input's grid. A concatenation puts its inputs on one
    grid: rescaling them would cost an operator, and XNNPACK's is inexact. Where they end in different activations
    saturation cannot stand for any of them. Only inputs whose kernel dictates a grid are rescaled.
    """
    first = SharedGrid("none", members=[trace.input], tensors=[trace.input])
    grids, of = [first], {trace.input: first}
    for operation in trace.operations:
        kind = LAYERS[operation.kind]
        sources = [of[name] for name in operation.inputs]
        if kind.grid_rule == "input":
            of[operation.name] = sources[0]
            sources[0].tensors.append(operation.name)
            continue
        own = SharedGrid(operation.activation, kind.fixed_grid)
        if kind.grid_rule == "join" and all(source.fixed is None for source in sources):
            activations = {source.activation for source in sources}
            own.activation = sources[0].activation if len(activations) == 1 else "none"
            for source in {id(source): source for source in sources}.values():
                own.members += source.members
                own.tensors += source.tensors
                grids.remove(source)
        else:
            own.members.append(operation.name)
        own.tensors.append(operation.name)
        of.update(dict.fromkeys(own.tensors, own))
        grids.append(own)
    return grids
