"""What a user's own code raised, said with its lines."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

import edgekd


def where(error: BaseException) -> str:
    """The lines of the user's own code that an exception came through, outermost first, and the exception."""
    return "\n".join([*own_lines(error), f"  {type(error).__name__}: {error}"])


def own_lines(error: BaseException) -> list[str]:
    """Every line that an exception came through, but for those of torch, edgekd and code without a file."""
    foreign = tuple(str(Path(module.__file__).parent) for module in (torch, edgekd) if module.__file__)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((*foreign, "<"))]
    return [f"  {frame.filename}:{frame.lineno} in {frame.name}: {frame.line}" for frame in own]
