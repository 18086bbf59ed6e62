"""How the board's monotonic clock stands to this machine's, for meters that are read here."""

from __future__ import annotations

import json
import time

from edgekd.board.connection.pump import BoardProcess
from edgekd.board.measuring.agent_client import Agent
from edgekd.board.measuring.agent_lines import ClockLine, parse_line
from edgekd.core.energy import ClockOffset, estimate_offset
from edgekd.errors import BoardError

EXCHANGES = 24
TIMEOUT_S = 30.0
POLL_S = 1.0


def measure_offset(agent: Agent) -> ClockOffset:
    """The board's clock less this machine's `time.monotonic`, in s, from a fresh process of the agent there.

    Raises:
        BoardError: it does not answer in time, or the link broke.
    """
    request = {"job": "clock", "deadline_s": 2 * TIMEOUT_S}
    exchanges = []
    with agent.session.start(agent.command) as process:
        lines = _Lines(process, agent.session.name)
        lines.send((json.dumps(request) + "\n").encode())
        lines.clock_ns()
        for _ in range(EXCHANGES):
            sent = time.monotonic()
            lines.send(b"?")
            board_ns = lines.clock_ns()
            exchanges.append((sent, board_ns / 1e9, time.monotonic()))
        process.close_stdin()
    return estimate_offset(exchanges)


class _Lines:
    """Question and answer with a process on the board."""

    def __init__(self, process: BoardProcess, name: str) -> None:
        self._process = process
        self._name = name
        self._rest = b""
        self._deadline = time.monotonic() + TIMEOUT_S

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._process.write_stdin(rest, POLL_S) :]
            self._check()

    def clock_ns(self) -> int:
        while b"\n" not in self._rest:
            chunk = self._process.read_stdout(POLL_S)
            if chunk == b"":
                raise BoardError(f"{self._name}: the agent there ended while its clock was read")
            self._rest += chunk or b""
            self._check()
        line, self._rest = self._rest.split(b"\n", 1)
        found = parse_line(line.decode("utf-8", errors="replace"), self._name)
        if not isinstance(found, ClockLine):
            raise BoardError(f"{self._name}: the agent there did not answer with its clock")
        return found.at_ns

    def _check(self) -> None:
        if time.monotonic() > self._deadline or len(self._rest) > 2**16:
            raise BoardError(f"{self._name}: the agent there does not tell its clock")
