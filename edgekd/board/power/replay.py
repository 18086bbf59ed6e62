"""Replays a logged trace as if it were read now: for rehearsals and tests.

The file holds `seconds,watts` lines and comments, as an external meter prints them; its first reading stands at the
start of the energy pass. What it tells was not drawn by this run, so it is grade D and no limit is judged on it.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.board.power.external import Readings, parse_readings
from edgekd.errors import ConfigurationError

SIZE_LIMIT_BYTES = 64 * 2**20


def load_trace(path: Path) -> Readings:
    """The readings of a logged trace.

    Raises:
        ConfigurationError: there is no such file, it is too large, or it is no trace.
    """
    try:
        if path.stat().st_size > SIZE_LIMIT_BYTES:
            raise ConfigurationError(f"--power replay:{path}: the file is over {SIZE_LIMIT_BYTES // 2**20} MiB")
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigurationError(f"--power replay:{path}: {error.strerror}") from error
    readings = parse_readings(text.splitlines(), f"--power replay:{path}")
    if len(readings.seconds) < 2:
        raise ConfigurationError(f"--power replay:{path}: the file holds no trace of at least two readings")
    return readings
