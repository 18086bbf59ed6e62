"""Imports of what only `edgekd[fit]` installs, at the moment they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from edgekd.errors import MissingExtraError


def fit_module(name: str) -> ModuleType:
    """The module of that name.

    Raises:
        MissingExtraError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(name.split(".")[0], "fit") from error
