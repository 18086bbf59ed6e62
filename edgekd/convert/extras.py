"""Imports of what only `edgekd[fit]` installs, at the moment they are needed."""

from __future__ import annotations

import importlib
import os
import sys
from tempfile import TemporaryDirectory
from types import ModuleType

from edgekd.errors import MissingExtraError

_CACHE = "XDG_CACHE_HOME"


def fit_module(name: str) -> ModuleType:
    """The module of that name.

    Raises:
        MissingExtraError: it is not installed; the message says how to install it.
    """
    try:
        return _onnxruntime() if name == "onnxruntime" else importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(name.split(".")[0], "fit") from error


def _onnxruntime() -> ModuleType:
    """Import it so that it leaves no identity and data base in the user's cache, as 1.31 and later do."""
    if "onnxruntime" in sys.modules:
        return sys.modules["onnxruntime"]
    before = os.environ.get(_CACHE)
    with TemporaryDirectory(prefix="edgekd-") as elsewhere:
        os.environ[_CACHE] = elsewhere
        try:
            module = importlib.import_module("onnxruntime")
            getattr(module, "disable_telemetry_events", lambda: None)()
        finally:
            os.environ.pop(_CACHE)
            if before is not None:
                os.environ[_CACHE] = before
    return module
