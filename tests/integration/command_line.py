"""The command as a user runs it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys


def edgekd(*arguments, cwd, timeout=500, **environment):
    """Run `edgekd` with these arguments; `environment` goes over this process's own."""
    return subprocess.run(
        [sys.executable, "-c", "from edgekd.cli import main; main()", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "COLUMNS": "120", **environment},
    )
