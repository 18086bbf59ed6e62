"""What a user's own code raised, said with its lines."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path


def where(error: BaseException) -> str:
    """The lines of the user's own code that an exception came through, outermost first, and the exception."""
    return "\n".join([*own_lines(error), _said(error)])


def where_in(error: BaseException, path: Path) -> str:
    """The lines of one file that an exception came through, else the line that raised it; and the exception."""
    lines = [_shown(frame) for frame in traceback.extract_tb(error.__traceback__)]
    kept = [line for line in lines if path.name in line] or lines[-1:]
    return "\n".join([*kept, _said(error)])


def own_lines(error: BaseException) -> list[str]:
    """Every line that an exception came through, but for those of torch, edgekd and code without a file."""
    modules = (sys.modules.get(name) for name in ("torch", "edgekd"))
    foreign = tuple(str(Path(module.__file__).parent) for module in modules if module and module.__file__)
    frames = traceback.extract_tb(error.__traceback__)
    return [_shown(frame) for frame in frames if not frame.filename.startswith((*foreign, "<"))]


def _shown(frame: traceback.FrameSummary) -> str:
    return f"  {frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"


def _said(error: BaseException) -> str:
    return f"  {type(error).__name__}: {error}"
