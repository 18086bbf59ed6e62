"""Every failure that edgekd foresees, each with the exit code a shell sees."""

from typing import Any


class EdgekdError(Exception):
    """A foreseen failure. The message says what, where, which value, and what to do next."""

    exit_code = 70


class ConfigurationError(EdgekdError):
    """A profile, recipe, budget, task, data set, path or output that cannot be used as given."""

    exit_code = 3


class UsageError(ConfigurationError):
    """A flag with a value that it does not take."""

    exit_code = 2


class MissingExtraError(ConfigurationError):
    """A command needs an optional part of edgekd that is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"this needs the module '{module}', which is not installed: pip install 'edgekd[{extra}]'")
        self.module = module
        self.extra = extra


class BoardError(EdgekdError):
    """A board that cannot be reached, refuses, is locked, or a command there that failed."""

    exit_code = 4


class BuildError(EdgekdError):
    """Training, conversion, parity, audit or the integrity of an artifact failed."""

    exit_code = 5


class InfeasibleBudgetError(EdgekdError):
    """No candidate of the student space is predicted to meet the budget.

    `frontier`: for each constraint relaxed alone, what it would take (`edgekd.records.Relaxation`).
    """

    exit_code = 1

    def __init__(self, message: str, frontier: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.frontier = frontier


EXIT_MET = 0
EXIT_MISSED = 1
EXIT_USAGE = 2
EXIT_UNDECIDED = 6
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
