"""A board made ready for one model: the runtime provisioned and the files sent, over a link that may break."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.board.connection.retry import reconnecting
from edgekd.board.connection.session import Session
from edgekd.board.examination.survey import take_telling_survey
from edgekd.board.lock import BoardLock
from edgekd.board.measuring.condition import is_emulated
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import RuntimeEnvironment, provision
from edgekd.records import Measurement
from edgekd.records.base import MeasuredRuntime


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a measurement needs there, and whether the board is a program."""

    environment: RuntimeEnvironment
    folder: str
    emulated: bool


def prepare(
    session: Session,
    lock: BoardLock,
    runtime: MeasuredRuntime,
    files: Mapping[str, Path],
    key: str,
    stage: Callable[[str, str], None],
    say: Callable[[str], None],
) -> Prepared:
    """Provision the runtime and send the files; a link that breaks meanwhile is made anew.

    Raises:
        BoardError: the board refuses, is full, has no fitting Python, or the link stays down.
        ConfigurationError: a file that cannot be read, or a name that no board can have.
    """
    stage("provision", f"{runtime} on {session.name}")
    emulated = is_emulated(take_telling_survey(session))
    environment = reconnecting(session, lock, lambda: provision(session, runtime, say), say)
    names = list(files)
    stage("send", ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""))
    folder = reconnecting(session, lock, lambda: deploy_files(session, files, key), say)
    return Prepared(environment, folder, emulated)


def under_circumstances(measurement: Measurement, prepared: Prepared) -> Measurement:
    """The measurement with what a reader must know of how it came about; of an emulated board nothing is judged."""
    changes: dict[str, Any] = {}
    notes = list(measurement.notes)
    if prepared.environment.note:
        notes.append(prepared.environment.note)
    if prepared.emulated:
        reason = "the board is emulated: its latencies and memory say nothing of a real one"
        notes.append(reason)
        changes |= {"matches_profile": None, "mismatch_reason": reason}
    facts = {**measurement.facts, "emulated": prepared.emulated}
    return measurement.model_copy(update={**changes, "facts": facts, "notes": tuple(notes)})
