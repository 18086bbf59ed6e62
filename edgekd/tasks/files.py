"""Finds a task by name or loads it from a user's Python file."""

from __future__ import annotations

import difflib
import inspect
import logging
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgekd.core.user_code import where_in
from edgekd.errors import ConfigurationError, EdgekdError
from edgekd.tasks import fashion_mnist, watch_gestures
from edgekd.tasks.check import check_task
from edgekd.tasks.contract import Task

logger = logging.getLogger(__name__)

BUILT_IN: dict[str, Callable[..., Task]] = {
    "watch-gestures": watch_gestures.load,
    "fashion-mnist": fashion_mnist.load,
}


def load_task(name: str, options: Mapping[str, Any]) -> Task:
    """The checked task of that name, or of the file of that path, which defines `load(**options) -> Task`.

    Raises:
        ConfigurationError: no such task or file, a file that raises, bad options, or data that cannot be used.
    """
    if name.endswith(".py"):
        loader = _loader_in(Path(name))
    elif name in BUILT_IN:
        loader = BUILT_IN[name]
    else:
        nearest = difflib.get_close_matches(name, BUILT_IN, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise ConfigurationError(
            f"there is no task {name!r}: {hint}built in are {', '.join(BUILT_IN)}; your own is a path that ends in .py"
        )
    task = _call(loader, name, options)
    check_task(task)
    return task


def _loader_in(path: Path) -> Callable[..., Task]:
    if not path.is_file():
        raise ConfigurationError(f"task file {path} does not exist")
    try:
        names = runpy.run_path(str(path), run_name="edgekd_task")
    except EdgekdError:
        raise
    except Exception as error:  # whatever a user's file raises is the file's fault, and is shown with its line
        raise ConfigurationError(f"task file {path} raised while it was read:\n{where_in(error, path)}") from error
    loader = names.get("load")
    if not callable(loader):
        raise ConfigurationError(f"task file {path} must define a function load() that returns an edgekd.tasks.Task")
    result: Callable[..., Task] = loader
    return result


def _call(loader: Callable[..., Task], name: str, options: Mapping[str, Any]) -> Task:
    accepted = inspect.signature(loader).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    unknown = [] if takes_any else [option for option in options if option not in accepted]
    if unknown:
        raise ConfigurationError(
            f"task {name}: unknown option {', '.join(unknown)}; it takes {', '.join(accepted) or 'none'}"
        )
    try:
        task = loader(**options)
    except EdgekdError:
        raise
    except Exception as error:  # as above: a user's code
        raise ConfigurationError(f"task {name} raised in load():\n{where_in(error, Path(name))}") from error
    if not isinstance(task, Task):
        raise ConfigurationError(f"task {name}: load() must return an edgekd.tasks.Task, not {type(task).__name__}")
    return task
