"""Runs the agent on a board: one job, one fresh process."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any, Literal

from edgekd.board.connection.session import NO_CACHE, Session, signal_name
from edgekd.board.measuring.agent_archive import put_agent
from edgekd.board.measuring.agent_lines import AgentLine, EndLine, ErrorLine, FactsLine, parse_line
from edgekd.board.measuring.facts import parse_facts
from edgekd.board.measuring.out_of_memory import OutOfMemoryError, oom_kills
from edgekd.core.board_output import printable
from edgekd.errors import BoardError, BuildError, ConfigurationError

IDLE_TIMEOUT_S = 25.0
FACTS_TIMEOUT_S = 60.0

Job = Literal["facts", "latency", "memory", "accuracy", "energy", "profile", "end_to_end", "engine", "provider"]


class Agent:
    """Starts the agent for one job at a time and hands over its lines."""

    def __init__(self, session: Session, python: str, site: str | None) -> None:
        self.session = session
        self._oom_kills = oom_kills(session)
        site_arguments = ["--site", site] if site else []
        self.command = ["env", NO_CACHE, python, "-I", put_agent(session), *site_arguments]

    def do(self, job: Job, on_line: Callable[[AgentLine], None], *, timeout_s: float, **details: Any) -> None:
        """Run one job in a fresh process.

        Raises:
            BuildError: the model file there is not the one that was built.
            BoardError: the agent could not do it, died, fell silent, or talked nonsense.
        """
        ended = False
        failure: ErrorLine | None = None

        def take(text: str) -> None:
            nonlocal ended, failure
            line = parse_line(text, self.session.name)
            if isinstance(line, ErrorLine):
                failure = line
            elif isinstance(line, EndLine):
                ended = True
            else:
                on_line(line)

        request = {"job": job, "deadline_s": timeout_s, "sysfs": self.session.sysfs, **details}
        result = self.session.stream(
            self.command,
            stdin=(json.dumps(request) + "\n").encode(),
            on_line=take,
            timeout_s=timeout_s + IDLE_TIMEOUT_S,
            idle_timeout_s=IDLE_TIMEOUT_S,
        )
        if failure is not None:
            raise _job_failure(self.session, failure)
        if not ended and result.signal == signal.SIGKILL:
            self._raise_if_out_of_memory(job)
        if not ended:
            raise _death(self.session, job, result.exit_code, result.signal, result.stderr)

    def _raise_if_out_of_memory(self, job: Job) -> None:
        before, now = self._oom_kills, oom_kills(self.session)
        if before is not None and now is not None and now > before:
            raise OutOfMemoryError(
                f"{self.session.name}: the kernel there ended the agent's {job} pass for want of memory (oom_kill in "
                f"/proc/vmstat went from {before} to {now})"
            )


def _job_failure(session: Session, line: ErrorLine) -> BoardError | BuildError | ConfigurationError:
    message = f"{session.name}: {printable(line.message)}"
    if line.code == "model_hash":
        return BuildError(f"{message}: the file there is not the one that was built; deploy it again")
    if line.code == "model":
        return BuildError(message)
    if line.code == "inputs":
        return ConfigurationError(message)
    if line.code == "trtexec":
        return BoardError(message)
    if line.code == "memory":
        return OutOfMemoryError(message)
    return BoardError(message)


def _death(session: Session, job: Job, exit_code: int | None, number: int | None, stderr: str) -> BoardError:
    said = printable(stderr.strip()[-600:], 600)
    if number is None:
        return BoardError(f"{session.name}: the agent's {job} pass ended with exit code {exit_code}: {said}")
    hints = {
        "SIGKILL": "the board probably ran out of memory: `dmesg | grep -i oom` there tells",
        "SIGILL": "the runtime uses instructions that this CPU lacks",
        "SIGALRM": "it did not end by its deadline",
    }
    name = signal_name(number)
    hint = hints.get(name, "the runtime crashed on this model" if name in ("SIGSEGV", "SIGABRT", "SIGBUS") else "")
    return BoardError(
        f"{session.name}: the agent was killed by {name} in its {job} pass{f': {hint}' if hint else ''}"
        + (f" ({said})" if said else "")
    )


def read_facts(session: Session, python: str) -> dict[str, Any]:
    """What the board is, and its state now.

    Raises:
        BoardError: the agent cannot run there.
    """
    return parse_facts(facts_line(Agent(session, python, None)))


def facts_line(agent: Agent) -> FactsLine:
    """The board's facts as it sent them.

    Raises:
        BoardError: it sent none.
    """
    found: list[FactsLine] = []

    def take(line: AgentLine) -> None:
        if isinstance(line, FactsLine):
            found.append(line)

    agent.do("facts", take, timeout_s=FACTS_TIMEOUT_S)
    if not found:
        raise BoardError(f"{agent.session.name}: the agent there reported no facts")
    return found[-1]
