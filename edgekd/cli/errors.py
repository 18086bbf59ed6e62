"""Turns failures into messages and exit codes, in one place."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from edgekd.cli.console import stderr
from edgekd.errors import EXIT_BUG, EXIT_INTERRUPTED, EdgekdError

EXIT_READER_GONE = 141
"""What a shell reports of a command that a closed pipe ended (128 + SIGPIPE)."""


KEPT = "edgekd.kept"
"""Where a command leaves, in its context's meta, what an interruption of it keeps; it goes before `KEPT_BY`."""

KEPT_BY = {
    "fit": "what was finished is kept; `edgekd fit … --resume` goes on from there",
    "calibrate": "what was measured is kept; the same command goes on from there",
}
"""What an interrupted command keeps, and how to go on from it; the others keep nothing."""


class ExitCodeGroup(TyperGroup):
    """Runs a command; a foreseen failure becomes its message and exit code, anything else is a bug with a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command of this context."""
        try:
            return super().invoke(ctx)
        except EdgekdError as error:
            stderr.print(f"[bold red]error:[/bold red] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            kept = ctx.meta.get(KEPT) or KEPT_BY.get(str(ctx.invoked_subcommand))
            stderr.print(f"interrupted: {kept}" if kept else "interrupted", markup=False, soft_wrap=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except (typer.Exit, typer.Abort, SystemExit):
            raise
        except BrokenPipeError:
            # The reader has gone (`edgekd … | head`). What Python still flushes at exit must go nowhere, quietly.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_READER_GONE) from None
        except Exception as error:
            if _is_usage(error):
                raise
            stderr.print_exception(show_locals=False)
            stderr.print("this is a bug in edgekd: please report it with the traceback above")
            raise typer.Exit(EXIT_BUG) from error


def _is_usage(error: Exception) -> bool:
    """Typer's own errors say themselves how they want to be shown and which exit code they have."""
    return hasattr(error, "exit_code") and hasattr(error, "show")
