"""An external meter: any command on this machine that prints `seconds,watts` lines.

The plug-in's contract:

- The command is split into words as a shell would, and run without a shell. It prints one line a reading, at once
  (unbuffered), as `seconds,watts`: decimal points, nothing else. `seconds` is when the power was taken, on this
  machine's clock: either Unix time or its monotonic clock; edgekd tells which by their size. `watts` is the power of
  the whole board.
- Lines that begin with `#` may state, once and before the first reading: `# rail=5 V input`, `# resolution_w=0.001`
  (the step of a reading), `# gain=0.01` (its largest relative error). Without them resolution is what the readings
  show and gain is taken as 0.02. A header line `seconds,watts` is skipped.
- It runs until it gets SIGTERM. If it ends earlier, what it measured does not cover the pass, and that is said.

A meter between supply and board is grade A.
"""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from edgekd.core.board_output import printable
from edgekd.errors import ConfigurationError

DEFAULT_GAIN = 0.02
FIRST_READING_S = 20.0
END_WAIT_S = 5.0
LINE_BYTES = 4096
READINGS_LIMIT = 2_000_000
# Readings come seconds, not hours, after they were taken.
SAME_CLOCK_S = 3600.0


@dataclass
class Readings:
    """What a meter printed: times as printed, watts, and what it states of itself."""

    seconds: list[float] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)
    stated: dict[str, str] = field(default_factory=dict)

    def take(self, line: str, where: str) -> bool:
        """Add one line; whether it was a reading.

        Raises:
            ConfigurationError: it is neither a reading nor a comment, or time goes backwards.
        """
        text = line.strip()
        if text.startswith("#"):
            name, separator, value = text.lstrip("# ").partition("=")
            if separator:
                self.stated[name.strip()] = value.strip()
            return False
        if not text or text.replace(" ", "").lower() == "seconds,watts":
            return False
        try:
            at, watts = (float(part) for part in text.split(","))
        except ValueError:
            at = watts = math.nan
        if not (math.isfinite(at) and math.isfinite(watts)):
            raise ConfigurationError(f"{where}: '{printable(text, 80)}' is not a line `seconds,watts`")
        if self.seconds and at < self.seconds[-1]:
            raise ConfigurationError(f"{where}: time goes back from {self.seconds[-1]:.6f} to {at:.6f} s")
        if not self.seconds or at > self.seconds[-1]:
            self.seconds.append(at)
            self.watts.append(watts)
        return True

    def number(self, name: str, default: float, where: str) -> float:
        """A number that the meter states of itself.

        Raises:
            ConfigurationError: it is none, or negative.
        """
        try:
            value = float(self.stated.get(name, default))
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise ConfigurationError(f"{where}: '{name}' is '{printable(self.stated[name], 40)}', which is no number")
        return value


def parse_readings(lines: Iterable[str], where: str) -> Readings:
    """All readings of a text.

    Raises:
        ConfigurationError: a line that is no reading.
    """
    readings = Readings()
    for line in lines:
        readings.take(line, where)
    return readings


def clock_shift(stamp: float, where: str) -> float:
    """What turns a reading's time, printed just now, into `time.monotonic`: 0 or Unix time's lead over it.

    Raises:
        ConfigurationError: the time is on neither clock.
    """
    monotonic = time.monotonic()
    lead = time.time() - monotonic
    for shift in (lead, 0.0):
        if abs(stamp - shift - monotonic) < SAME_CLOCK_S:
            return shift
    raise ConfigurationError(
        f"{where}: the time {stamp:.3f} is neither this machine's Unix time ({time.time():.0f}) nor its monotonic "
        f"clock ({monotonic:.0f}): print when the power was taken on one of them"
    )


class ExternalMeter:
    """The command while it runs; a context manager, entered once its first reading is there."""

    def __init__(self, command: str) -> None:
        self.where = f"external:{printable(command, 60)}"
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise ConfigurationError(f"--power {self.where}: {error}") from error
        if not self._words:
            raise ConfigurationError("--power external:COMMAND needs a command")
        self.readings = Readings()
        self.shift_s = 0.0
        self._error: ConfigurationError | None = None
        self._first = threading.Event()

    def check(self) -> None:
        """Refuse a program that is not there, before anything is started.

        Raises:
            ConfigurationError: it is not.
        """
        if shutil.which(self._words[0]) is None:
            raise ConfigurationError(f"--power {self.where}: there is no program '{printable(self._words[0], 60)}'")

    def __enter__(self) -> Self:
        try:
            self._process = subprocess.Popen(
                self._words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigurationError(f"--power {self.where}: cannot be started: {error.strerror}") from error
        self._said = b""
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._read_errors)]
        for thread in self._threads:
            thread.start()
        if not self._first.wait(FIRST_READING_S) or self._error or not self.readings.seconds:
            self.__exit__()
            said = printable(self._said.decode("utf-8", errors="replace").strip()[-300:], 300)
            raise self._error or ConfigurationError(
                f"--power {self.where}: no reading came within {FIRST_READING_S:.0f} s" + (f": {said}" if said else "")
            )
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(END_WAIT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for thread in self._threads:
            thread.join(END_WAIT_S)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def host_trace(self) -> tuple[list[float], list[float]]:
        """Times on this machine's monotonic clock, and watts.

        Raises:
            ConfigurationError: a line was no reading.
        """
        if self._error is not None:
            raise self._error
        return [at - self.shift_s for at in self.readings.seconds], list(self.readings.watts)

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            while line := stdout.readline(LINE_BYTES):
                taken = self.readings.take(line.decode("utf-8", errors="replace"), f"--power {self.where}")
                if taken and not self._first.is_set():
                    self.shift_s = clock_shift(self.readings.seconds[0], f"--power {self.where}")
                    self._first.set()
                if len(self.readings.seconds) > READINGS_LIMIT:
                    raise ConfigurationError(f"--power {self.where}: more than {READINGS_LIMIT} readings")
        except ConfigurationError as error:
            self._error = error
        finally:
            self._first.set()

    def _read_errors(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        while chunk := stderr.read1(4096):  # type: ignore[attr-defined]
            self._said = (self._said + chunk)[-4096:]
