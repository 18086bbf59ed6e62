"""Passes beside the timed one: end to end, per operator; and the board's raw outputs against this machine's."""

from __future__ import annotations

import base64
import binascii
import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np

from edgekd.board.measuring.agent_client import Agent
from edgekd.board.measuring.agent_lines import (
    AgentLine,
    EndToEndLine,
    InputDescription,
    LoadedLine,
    OperatorsLine,
    OutputsLine,
    PredictionsLine,
)
from edgekd.board.measuring.timed_pass import START_ALLOWANCE_S, Progress
from edgekd.core.board_output import printable
from edgekd.errors import BoardError
from edgekd.records import HostParity, MeasurementPlan, OperatorTime, RuntimeName

logger = logging.getLogger(__name__)

REFERENCE_TIMEOUT_S = 1800.0
OUTPUT_LIMIT = 4 * 2**20
MODULES: dict[RuntimeName, str] = {"tflite": "ai_edge_litert", "onnx": "onnxruntime"}
DTYPES = ("int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64")


def end_to_end_pass(agent: Agent, common: dict[str, Any], plan: MeasurementPlan, say: Progress) -> tuple[float, ...]:
    """Times in ms from a stored input to the predicted class, of one fresh process.

    Raises:
        BoardError: the agent failed or told none.
    """
    say("timing from input to class")
    found: list[EndToEndLine] = []

    def take(line: AgentLine) -> None:
        if isinstance(line, EndToEndLine):
            found.append(line)

    agent.do("end_to_end", take, timeout_s=START_ALLOWANCE_S * 2, **common, warmup_runs=plan.warmup_runs)
    if not found or not found[-1].duration_ns:
        raise BoardError(f"{agent.session.name}: the agent's pass from input to class gave no times")
    return tuple(duration / 1e6 for duration in found[-1].duration_ns)


def operator_pass(agent: Agent, common: dict[str, Any], say: Progress) -> tuple[OperatorTime, ...]:
    """The mean time of each operator, in the order of the graph, by the runtime's own profiler.

    Raises:
        BoardError: the agent failed or the profile is unreadable.
    """
    say("profiling operators")
    found: list[OperatorsLine] = []

    def take(line: AgentLine) -> None:
        if isinstance(line, OperatorsLine):
            found.append(line)

    agent.do("profile", take, timeout_s=START_ALLOWANCE_S * 2, **common)
    operators = found[-1].operators if found else ()
    total = sum(operator.mean_us for operator in operators)
    return tuple(
        OperatorTime(
            name=printable(operator.name, 200),
            kind=printable(operator.kind, 100),
            mean_ms=operator.mean_us / 1e3,
            share=operator.mean_us / total if total else 0.0,
        )
        for operator in operators
    )


@dataclass(frozen=True, slots=True)
class RawOutputs:
    """The first output of the first `rows` stored inputs, as the runtime gave it, all in one row of values.

    Of this machine's also: which predictions over all stored inputs were right, and the model's inputs.
    """

    rows: int
    values: np.ndarray[Any, Any]
    runtime_version: str = ""
    correct: tuple[bool, ...] | None = None
    inputs: tuple[InputDescription, ...] = ()

    def only(self, rows: Sequence[int]) -> RawOutputs:
        """The outputs of these rows alone."""
        return replace(self, rows=len(rows), values=self.values.reshape(self.rows, -1)[list(rows)].ravel())

    @classmethod
    def of(cls, lines: Sequence[OutputsLine]) -> Self | None:
        """From what the agent sent; None where it sent none, or of a type that is not compared.

        Raises:
            BoardError: what it sent is damaged.
        """
        if not lines or lines[0].dtype not in DTYPES:
            return None
        if sum(len(line.data) for line in lines) > OUTPUT_LIMIT or len({line.dtype for line in lines}) > 1:
            raise BoardError("the agent sent more outputs than it should, or of several types")
        dtype = np.dtype(lines[0].dtype)
        try:
            data = b"".join(base64.b64decode(line.data, validate=True) for line in lines)
            values = np.frombuffer(data, dtype=dtype)
        except (binascii.Error, ValueError) as error:
            raise BoardError(f"the agent sent outputs that are damaged: {error}") from error
        if not lines[0].rows or len(values) % lines[0].rows:
            raise BoardError(f"the agent sent {len(values)} output values for {lines[0].rows} inputs")
        return cls(lines[0].rows, values)


def host_outputs(model: Path, sha256: str, inputs: Path, runtime: RuntimeName, threads: int) -> RawOutputs | None:
    """This machine's raw outputs for a file, by the same agent; None where the runtime is not installed here.

    onnxruntime is asked for exact sums, which x86 without VNNI otherwise does not give.
    """
    if importlib.util.find_spec(MODULES[runtime]) is None:
        return None
    from edgekd.board.connection.local import LocalSession

    lines: list[OutputsLine] = []
    loaded: list[LoadedLine] = []
    correct: list[bool] = []

    def take(line: AgentLine) -> None:
        if isinstance(line, OutputsLine):
            lines.append(line)
        elif isinstance(line, LoadedLine):
            loaded.append(line)
        elif isinstance(line, PredictionsLine):
            correct.extend(line.correct or ())

    with TemporaryDirectory(prefix="edgekd-") as folder, LocalSession() as session:
        session.home = folder
        agent = Agent(session, sys.executable, None)
        job = {"runtime": runtime, "model": str(model.resolve()), "model_sha256": sha256, "threads": threads}
        try:
            agent.do("accuracy", take, timeout_s=REFERENCE_TIMEOUT_S, **job, inputs=str(inputs.resolve()), exact=True)
        except BoardError as error:
            logger.warning("this machine's outputs could not be had, so the board's are compared with none: %s", error)
            return None
    found = RawOutputs.of(lines)
    if found is None or not loaded:
        return None
    version = printable(loaded[-1].runtime_version, 60)
    return RawOutputs(found.rows, found.values, version, tuple(correct) or None, loaded[-1].inputs)


def compare_outputs(board: RawOutputs, host: RawOutputs) -> HostParity | None:
    """How far the board's outputs are from this machine's; None where they cannot be compared."""
    width = len(board.values) // board.rows if board.rows else 0
    rows = min(board.rows, host.rows)
    if board.values.dtype != host.values.dtype or not rows or len(host.values) != width * host.rows:
        return None
    ours, theirs = (one.values[: rows * width].reshape(rows, width) for one in (host, board))
    identical = ours == theirs
    most = mean = None
    if board.values.dtype.kind in "iu":
        steps = np.abs(theirs.astype(np.int64) - ours.astype(np.int64))
        most, mean = int(steps.max()), float(steps.mean())
    return HostParity(
        inputs=rows,
        bit_exact=bool(identical.all()),
        identical=float(identical.mean()),
        max_abs_lsb=most,
        mean_abs_lsb=mean,
        max_abs=float(np.abs(theirs.astype(np.float64) - ours).max()) if board.values.dtype.kind == "f" else None,
        top1_agreement=float((theirs.argmax(1) == ours.argmax(1)).mean()),
        host_runtime_version=host.runtime_version or importlib.metadata.version("edgekd"),
    )
