"""Reads a power meter from a process of its own, so that the process that infers is not disturbed.

The sampler keeps its readings and hands them over when a byte comes in; it ends when its standard input closes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ..power.meters import reader_of
from ..power.source import MeterFailure, Source
from .wire import AgentError

SAMPLER_OPTION = "--sampler"
END_WAIT_S = 5.0
# Readings that fail one after another for this long are a failure: single ones are a sensor's ENODATA.
PATIENCE_S = 2.0


class Sampler:
    """A running sampler process. Readings are (time in ns on the clock of the samples, value)."""

    def __init__(self, source: Source, sysfs: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", sys.argv[0], SAMPLER_OPTION],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        job = {"source": dataclasses.asdict(source), "sysfs": str(sysfs)}
        self._ask((json.dumps(job) + "\n").encode())
        # What is asked before it reads would be taken for a part of the job.
        self._answer()

    def _ask(self, data: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(data)
            stdin.flush()
        except OSError as error:
            raise AgentError("meter", f"the process that reads the power meter ended: {error}") from error

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            raise AgentError("meter", "the process that reads the power meter ended")
        answer: dict[str, Any] = json.loads(line)
        if answer["failure"]:
            raise AgentError("meter", f"the power meter failed: {answer['failure']}")
        return answer

    def collect(self) -> tuple[list[int], list[float], int]:
        """All readings since the last call, and how many failed."""
        self._ask(b"\n")
        answer = self._answer()
        return answer["at_ns"], answer["values"], answer["missed"]

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(END_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Readings:
    """What was read since the last time it was asked for."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._at_ns: list[int] = []
        self._values: list[float] = []
        self._missed = 0
        self._in_a_row = 0
        self.failure = ""

    def add(self, began_ns: int, ended_ns: int, value: float) -> None:
        self._at_ns.append((began_ns + ended_ns) // 2)
        self._values.append(value)
        self._in_a_row = 0

    def miss(self, reason: str) -> None:
        self._missed += 1
        self._in_a_row += 1
        if self._in_a_row >= self._patience:
            self.failure = reason

    def handed_over(self) -> dict[str, Any]:
        answer = {"at_ns": self._at_ns, "values": self._values, "missed": self._missed, "failure": self.failure}
        self._at_ns, self._values, self._missed = [], [], 0
        return answer


def run_sampler() -> int:
    """Entry of the sampler process."""
    job = json.loads(sys.stdin.buffer.readline())
    job["source"]["places"] = tuple(job["source"]["places"])
    source = Source(**job["source"])
    readings = _Readings(max(3, int(PATIENCE_S / source.interval_s)))
    try:
        read = reader_of(source, Path(job["sysfs"]))
    except (MeterFailure, OSError, ValueError) as error:
        readings.failure = str(error)
    os.write(1, (json.dumps(readings.handed_over()) + "\n").encode())
    due = time.perf_counter()
    while True:
        wait_s = None if readings.failure else max(0.0, due - time.perf_counter())
        ready, _, _ = select.select([0], [], [], wait_s)
        if ready:
            if not os.read(0, 1):
                return 0
            os.write(1, (json.dumps(readings.handed_over()) + "\n").encode())
            continue
        began = time.perf_counter_ns()
        try:
            value = read()
            readings.add(began, time.perf_counter_ns(), value)
        except MeterFailure as error:
            readings.failure = str(error)
        except (OSError, ValueError, KeyError) as error:
            readings.miss(f"{type(error).__name__}: {error}")
        due = max(due + source.interval_s, time.perf_counter())
