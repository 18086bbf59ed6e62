"""One call of an exported graph, as rules see it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from edgekd.errors import BuildError
from edgekd.nn.quantized.operations import Operation
from edgekd.nn.quantized.views import Shape, View, channel_axis, stored_shape

_MOVES: dict[tuple[View, View, int], Shape] = {
    ("first", "last", 3): (0, 3, 2, 1),
    ("last", "first", 3): (0, 3, 2, 1),
    ("first", "last", 4): (0, 3, 1, 2),
    ("last", "first", 4): (0, 2, 3, 1),
}
"""How stored axes move where a tensor is needed in another view."""


class Call:
    """A call's arguments by their schema names, and what is known of them and of its output.

    `views` are those of all tensors so far; a rule sets `result` where its output's is not `first`. `before` collects
    operations that have to stand in front of the rule's own.
    """

    def __init__(self, node: fx.Node, constants: dict[str, Tensor], views: dict[str, View]) -> None:
        self.node = node
        self.constants_by_name = constants
        self.views = views
        self.result: View = "first"
        self.before: list[Operation] = []
        target: Any = node.target
        names = [argument.name for argument in target._schema.arguments]
        self.values = {argument.name: argument.default_value for argument in target._schema.arguments}
        self.values.update(zip(names, node.args, strict=False))
        self.values.update(node.kwargs)

    def __getitem__(self, name: str) -> Any:
        """The value of an argument: a number, a list, or a node."""
        return self.values[name]

    def first(self) -> str:
        """The name of the first argument, which ATen calls `self` or `input`."""
        name: str = next(iter(self.values))
        return name

    def error(self, reason: str) -> BuildError:
        """The error to raise where this call cannot be quantized for `reason`."""
        return BuildError(f"{describe(self.node)}: {reason}")

    def constant(self, name: str) -> Tensor | None:
        """The constant tensor passed for `name`, or None where none was passed."""
        value = self.values[name]
        if value is None:
            return None
        if not self.is_constant(name):
            raise self.error(f"'{name}' is computed from the input; it must be a parameter")
        return self.constants_by_name[value.name]

    def is_constant(self, name: str) -> bool:
        """Whether an argument is a parameter, or computed from parameters alone."""
        value = self.values[name]
        return isinstance(value, fx.Node) and value.name in self.constants_by_name

    def constants(self, *names: str) -> dict[str, Tensor]:
        """The constant tensors that were passed for `names`."""
        return {name: tensor for name in names if (tensor := self.constant(name)) is not None}

    def view(self, name: str) -> View:
        """The view of a tensor argument."""
        return self.views.get(self.values[name].name, "first")

    def own_shape(self, name: str | None = None) -> Shape:
        """The shape that an argument, or the output, has in the user's module, batch 1."""
        return own_shape_of(self.node if name is None else self.values[name])

    def shape(self, name: str) -> Shape:
        """The stored shape of a tensor argument."""
        return stored_shape(self.own_shape(name), self.view(name))

    def output_shape(self) -> Shape:
        """The stored shape of the output, in the view `result`."""
        return stored_shape(self.own_shape(), self.result)

    def rank(self, name: str) -> int:
        """How many dimensions the user's tensor has."""
        return len(self.values[name].meta["val"].shape)

    def is_channel_axis(self, name: str, axis: int) -> bool:
        """Whether one of a tensor's own axes holds the channels."""
        return axis % self.rank(name) == channel_axis(self.view(name), self.rank(name))

    def tensor(self, value: Any, view: View) -> str:
        """The name of a tensor in a view, moved there where it is stored in another.

        Raises:
            BuildError: it is a constant, or an order of dimensions that has no such move.
        """
        if not isinstance(value, fx.Node) or value.name in self.constants_by_name:
            raise self.error("one of its inputs is a constant, which is not supported there")
        shape, present = own_shape_of(value), self.views.get(value.name, "first")
        if present == view or len(shape) == 2:
            return value.name
        axes = _MOVES.get((present, view, len(shape)))
        if axes is None:
            raise self.error(f"its input of shape {shape} comes in an order of dimensions that is not supported there")
        moved = f"{value.name}_as_{view}_for_{self.node.name}"
        self.before.append(
            Operation(moved, "permute", place_of(self.node), (value.name,), stored_shape(shape, view),
                      attributes={"axes": axes}, call=describe(self.node))
        )  # fmt: skip
        return moved

    def operation(self, kind: str, *inputs: str, view: View = "first", **fields: Any) -> Operation:
        """An operation of this node over the tensor arguments named `inputs`, all and the output in one view."""
        values: list[Any] = []
        for name in inputs:
            value = self.values[name]
            values.extend(value if isinstance(value, (list, tuple)) else [value])
        names = tuple(self.tensor(value, view) for value in values)
        self.result = view if len(self.own_shape()) > 2 else "first"
        return self.made(kind, names, **fields)

    def made(self, kind: str, names: tuple[str, ...], **fields: Any) -> Operation:
        """An operation of this node over stored tensors, its output in the view `result`."""
        place, shape = place_of(self.node), self.output_shape()
        return Operation(self.node.name, kind, place, names, shape, call=describe(self.node), **fields)


def place_of(node: fx.Node) -> str:
    """Where in the user's module a call stands, as an attribute path; "the model itself" at the top."""
    stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return (stack[-1] if stack else "") or "the model itself"


def describe(node: fx.Node) -> str:
    """The operator, its place and its module's class, for messages."""
    kind = [getattr(kind, "__name__", str(kind)) for _, kind in node.meta.get("nn_module_stack", {}).values()]
    owner = f" ({kind[-1].rsplit('.', 1)[-1]})" if kind else ""
    return f"{node.target} at {place_of(node)}{owner}"


def own_shape_of(node: fx.Node) -> Shape:
    """The shape for one input, batch 1, as the user's module has it."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dim() < 1:
        raise BuildError(f"{describe(node)}: gives no tensor of a batch; edgekd supports one tensor per operator")
    rest = value.shape[1:]
    if not all(isinstance(size, int) for size in rest) or isinstance(value.shape[0], int):
        raise BuildError(f"{describe(node)}: the batch must stay the first dimension, but the shape is {value.shape}")
    return (1, *(int(size) for size in rest))
