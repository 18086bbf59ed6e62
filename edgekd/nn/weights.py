"""Weights from files: every way in which a file is none ends in one message that names the file and the cause."""

from __future__ import annotations

import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd.errors import ConfigurationError, EdgekdError

UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
    ArithmeticError,
    MemoryError,
)
"""What torch.load raises of a file that is damaged, or that torch.save did not write."""

NESTED = ("state_dict", "model_state_dict", "model")
"""Under which key training scripts keep the state dict beside what else they save."""


def read_state(
    path: Path, what: str, failure: type[EdgekdError] = ConfigurationError, remedy: str = ""
) -> dict[Any, Any]:
    """The dict that `torch.save` wrote to a file; nothing in it is executed.

    Args:
        path: the file.
        what: what the file is to be, at the start of the message.
        failure: which error; of a user's file, or of one of our own that was damaged.
        remedy: what to do, at the end of the message.

    Raises:
        failure: no such file, no torch file, or no dict in it.
    """
    if not path.is_file():
        raise failure(f"{what} {path}: no such file{remedy}")
    try:
        # torch warns of what it then fails on.
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise failure(f"{what} {path}: not torch weights: {_cause(error)}{remedy}") from error
    if not isinstance(state, Mapping):
        raise failure(f"{what} {path}: not torch weights: it holds a {type(state).__name__}, not a state dict{remedy}")
    return dict(state)


def load_weights(
    model: nn.Module, path: Path, what: str, whose: str, failure: type[EdgekdError] = ConfigurationError
) -> None:
    """Load a file's state dict into a model, also where a training script saved it beside other things.

    Args:
        model: changed in place; of no use any more where this fails.
        path: as `read_state`.
        what: as `read_state`.
        whose: what the weights should be of, in the message.
        failure: as `read_state`.

    Raises:
        failure: as `read_state`, or weights of another model.
    """
    state = read_state(path, what, failure)
    for key in NESTED:
        if isinstance(state.get(key), Mapping):
            state = dict(state[key])
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip().rstrip(".") for line in str(error).splitlines()]
        said = "; ".join(line for line in lines if line and not line.startswith("Error(s) in loading"))
        raise failure(f"{what} {path}: the weights do not fit {whose}: {_short(said)}") from error


def _cause(error: BaseException) -> str:
    """The cause alone: torch's own text is long, and advises to execute what is in the file."""
    if isinstance(error, pickle.UnpicklingError):
        said = str(error).rpartition("WeightsUnpickler error:")[2].strip() or "it cannot be unpickled"
        if said.startswith("Unsupported global"):
            name = said.partition("GLOBAL ")[2].partition(" ")[0]
            return f"it holds an object of {name}, not tensors alone: save model.state_dict() instead"
        return _short(f"damaged, or not written by torch.save ({said.splitlines()[0]})")
    said = str(error).partition(". ")[0].strip()
    kind = type(error).__name__
    return _short(
        f"damaged, or not written by torch.save ({kind}: {said})"
        if said
        else f"damaged, or not written by torch.save ({kind})"
    )


def _short(text: str, most: int = 400) -> str:
    return text if len(text) <= most else f"{text[:most].rstrip()} …"
