"""Where a training run stands, on disk: a run that goes on from there ends bit for bit like one never stopped."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from edgekd.errors import BuildError, ConfigurationError
from edgekd.nn.weights import read_state


def identity(*parts: object) -> str:
    """A hash of what a run's result depends on, as far as it can be named."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; what is at `path` is always a whole one.

    Raises:
        ConfigurationError: it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigurationError(f"checkpoint {path} cannot be written: {error}") from error


def load(path: Path, expected_identity: str) -> dict[str, Any] | None:
    """The checkpoint at `path`, or None where there is none.

    Raises:
        BuildError: it is damaged.
        ConfigurationError: it is of a run with other data, schedule, seed or objectives.
    """
    if not path.exists():
        return None
    state = read_state(path, "checkpoint", BuildError, ": remove it to start over")
    if state.get("identity") != expected_identity:
        raise ConfigurationError(
            f"checkpoint {path} is of a run with another seed, schedule, model, data, regime or objectives: remove it, "
            "or repeat that run's settings"
        )
    return state
