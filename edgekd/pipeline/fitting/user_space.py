"""A student space of a user's own: `FILE.py:NAME`, whose choices are built, traced and costed like any other's."""

from __future__ import annotations

import itertools
import math
import runpy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.core.architecture import Architecture, Shape, TracedArchitecture
from edgekd.core.operators import OperatorList
from edgekd.core.spaces import Choices, StudentSpace, space_named
from edgekd.core.user_code import where_in
from edgekd.errors import BuildError, ConfigurationError, EdgekdError
from edgekd.store import hash_file
from edgekd.tasks import Space

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_CHOICES = 2000
"""Combinations that are traced one by one before anything is trained: some take a second."""


def space_of(name: str) -> StudentSpace:
    """The space of a name, or of a user's `FILE.py:NAME`; that is read once.

    Raises:
        ConfigurationError: there is none, or the file or what it declares cannot be used.
    """
    return _user_space(name) if is_reference(name) else space_named(name)


@cache
def _user_space(reference: str) -> UserSpace:
    return UserSpace(reference, _declared(reference))


def is_reference(name: str) -> bool:
    """Whether a space's name points into a Python file."""
    return ".py:" in name or name.endswith(".py")


def anchored_space(name: str, folder: Path) -> str:
    """A name as it is; a reference with an absolute path, so that a run can be repeated anywhere."""
    file, separator, attribute = name.rpartition(":")
    if not is_reference(name) or not separator:
        return name
    return f"{(folder / Path(file).expanduser()).resolve()}:{attribute}"


def source_of(space: StudentSpace) -> dict[str, str]:
    """What a stage's result depends on beside the choices: the content of the user's file."""
    return {"space": hash_file(Path(space.name.rpartition(":")[0]))} if isinstance(space, UserSpace) else {}


class UserSpace:
    """A declared space. Operators come from the file that a student with these choices would become."""

    def __init__(self, name: str, declared: Space) -> None:
        self._name, self._declared = name, declared
        self._traced: dict[tuple[Any, ...], Traced] = {}

    @property
    def name(self) -> str:
        """`/path/FILE.py:NAME`."""
        return self._name

    def dimensions(self, native: Shape) -> dict[str, tuple[int, ...]]:
        """Allowed values by choice name, as declared."""
        return {name: tuple(values) for name, values in self._declared.dimensions.items()}

    def input_shape(self, choices: Choices, native: Shape) -> Shape:
        """Shape (C, H, W) that the chosen student takes.

        Raises:
            ConfigurationError: the user's function raised, or gave no shape.
        """
        if self._declared.input_shape is None:
            return native
        try:
            shape = tuple(self._declared.input_shape(dict(choices), native))
        except Exception as error:  # a user's code
            raise ConfigurationError(
                f"{self.said(choices)}: input_shape raised:\n{where_in(error, self._file)}"
            ) from error
        whole = len(shape) == 3 and all(isinstance(side, int) and side > 0 for side in shape)
        if not whole or shape[0] != native[0]:
            raise ConfigurationError(
                f"{self.said(choices)}: input_shape gave {shape}; wanted are three whole numbers, {native[0]} first"
            )
        return shape[0], shape[1], shape[2]

    def architecture(self, choices: Choices, native: Shape, outputs: int) -> Architecture:
        """The student that the choices stand for; built and traced once, then remembered.

        Raises:
            ConfigurationError: it cannot be built or has no form in a file; the message names the choices.
        """
        shape = self.input_shape(choices, native)
        key = (tuple(sorted(choices.items())), shape, outputs)

        def build() -> nn.Module:
            return self._built(choices, shape, outputs)

        if key not in self._traced:
            try:
                self._traced[key] = traced(build(), shape)
            except BuildError as error:
                raise ConfigurationError(f"{self.said(choices)}: {error}") from error
        return self._traced[key].architecture(shape, outputs, build)

    def _built(self, choices: Choices, shape: Shape, outputs: int) -> nn.Module:
        import torch

        from edgekd.nn.evaluation import evaluating

        try:
            module = self._declared.build(input_shape=shape, outputs=outputs, **choices)
            if not isinstance(module, torch.nn.Module):
                raise ConfigurationError(f"{self.said(choices)}: build gave a {type(module).__name__}, no torch module")
            with torch.no_grad(), evaluating(module):
                logits = module(torch.zeros(1, *shape))
        except EdgekdError:
            raise
        except Exception as error:  # a user's code
            raise ConfigurationError(f"{self.said(choices)}: build raised:\n{where_in(error, self._file)}") from error
        if tuple(logits.shape) != (1, outputs):
            raise ConfigurationError(
                f"{self.said(choices)}: for one input (1, {', '.join(map(str, shape))}) the module gave "
                f"{tuple(logits.shape)}; wanted are logits (1, {outputs})"
            )
        return module

    @property
    def _file(self) -> Path:
        return Path(self._name.rpartition(":")[0])

    def said(self, choices: Choices) -> str:
        """A choice in words, for messages."""
        chosen = ", ".join(f"{name}={value}" for name, value in choices.items())
        return f"student.space {self._file.name}:{self._name.rpartition(':')[2]} with {chosen}"


class Int8Space:
    """A declared space without its students that would have layers in float for want of an int8 form."""

    def __init__(self, space: UserSpace) -> None:
        self.space = space

    @property
    def name(self) -> str:
        """As the space's own."""
        return self.space.name

    def dimensions(self, native: Shape) -> dict[str, tuple[int, ...]]:
        """As the space's own."""
        return self.space.dimensions(native)

    def input_shape(self, choices: Choices, native: Shape) -> Shape:
        """As the space's own."""
        return self.space.input_shape(choices, native)

    def architecture(self, choices: Choices, native: Shape, outputs: int) -> Architecture:
        """As the space's own.

        Raises:
            ConfigurationError: as the space's own; and where an operator has no int8 form.
        """
        found = self.space.architecture(choices, native, outputs)
        if isinstance(found, TracedArchitecture) and found.float_operators:
            raise ConfigurationError(
                f"{self.space.said(choices)}: no int8 form is known for {', '.join(found.float_operators)}: replace "
                "it, or keep it in float with --allow-float-ops"
            )
        return found


@dataclass(frozen=True)
class Traced:
    """What a module's file was found to hold, see `TracedArchitecture`."""

    operators: OperatorList
    float_operators: tuple[str, ...]
    float_share: float

    def architecture(self, shape: Shape, outputs: int, build: Callable[[], nn.Module]) -> TracedArchitecture:
        """The same as an architecture that `build` gives."""
        return TracedArchitecture(shape, (), outputs, self.operators, build, self.float_operators, self.float_share)


def traced(module: nn.Module, shape: Shape) -> Traced:
    """The .tflite that a module would become in int8, with what has no int8 form in float.

    Its operators are what `edgekd predict` reads of that file.

    Raises:
        BuildError: an operator has no form at all.
    """
    import torch

    from edgekd.convert.isolated import write_network
    from edgekd.convert.model_file import read_graph
    from edgekd.convert.operators import float_share, operators_of
    from edgekd.nn.quantized.model import quantize_model

    example: Tensor = torch.zeros(1, *shape)
    quantized = quantize_model(module.eval(), example, "wi8_ai8_mixed")
    quantized.calibrate([torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.tflite"
        write_network(quantized.network(), path)
        graph = read_graph(path)
        return Traced(operators_of(graph), quantized.float_places, float_share(graph))


def _declared(reference: str) -> Space:
    file, separator, attribute = reference.rpartition(":")
    if not separator or not file.endswith(".py") or not attribute:
        raise ConfigurationError(
            f"student.space {reference!r}: wanted is FILE.py:NAME, the name of an edgekd.tasks.Space in that file"
        )
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigurationError(f"student.space: {path} does not exist")
    try:
        names = runpy.run_path(str(path), run_name="edgekd_space")
    except EdgekdError:
        raise
    except Exception as error:  # a user's code
        raise ConfigurationError(f"student.space: {path} raised while it was read:\n{where_in(error, path)}") from error
    found = names.get(attribute)
    if not isinstance(found, Space):
        spaces = ", ".join(name for name, value in names.items() if isinstance(value, Space)) or "none"
        raise ConfigurationError(f"student.space: {path} has no edgekd.tasks.Space {attribute!r}; it has: {spaces}")
    _check(found, f"student.space {path.name}:{attribute}")
    return found


def _check(space: Space, where: str) -> None:
    if not isinstance(space.dimensions, Mapping) or not space.dimensions:
        raise ConfigurationError(f"{where}: dimensions must map the name of each choice to its allowed values")
    for name, values in space.dimensions.items():
        numbers = list(values)
        if not numbers or any(isinstance(one, bool) or not isinstance(one, int) for one in numbers):
            raise ConfigurationError(f"{where}: dimension {name!r} must list whole numbers, got {numbers!r}")
        if len(set(numbers)) != len(numbers):
            raise ConfigurationError(f"{where}: dimension {name!r} lists a value twice: {numbers!r}")
    combinations = math.prod(len(list(values)) for values in space.dimensions.values())
    if combinations > MOST_CHOICES:
        sizes = itertools.starmap(lambda name, values: f"{name} {len(list(values))}", space.dimensions.items())
        raise ConfigurationError(
            f"{where}: {combinations} combinations ({', '.join(sizes)}); each is built and traced, so "
            f"{MOST_CHOICES} are the most: list fewer values"
        )
    if not callable(space.build):
        raise ConfigurationError(f"{where}: build must be a function")
