"""What the agent may say: every line it sends is one of these records, or it is refused."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from edgekd.core.board_output import printable
from edgekd.errors import BoardError
from edgekd.records.base import Record

Text = Annotated[str, StringConstraints(max_length=20_000)]
Word = Annotated[str, StringConstraints(max_length=300)]
Nanoseconds = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Texts = Annotated[dict[Word, Text], Field(max_length=1024)]


class RawState(Record):
    """The board's state at one moment, as text. `at_ns` is on the clock of the samples."""

    at_ns: Nanoseconds
    thermal_zones: Annotated[dict[Word, tuple[Word, Word]], Field(max_length=1024)]
    clocks_khz: Texts
    governors: Texts
    throttle_counts: Texts
    throttle_alerts: Texts = {}
    overcurrent_counts: Texts = {}
    get_throttled: Text | None
    loadavg: Text | None


class StateLine(RawState):
    """The state during a run."""

    kind: Literal["state"]


class FactsLine(Record):
    """What the board is, and its state."""

    kind: Literal["facts"]
    model: Text | None
    meminfo: Text | None
    cpuinfo: Text | None
    os_release: Text | None
    max_clocks_khz: Texts
    nvpmodel: Text | None = None
    kernel: Word
    machine: Word
    hostname: Word
    python: Word
    libc: Word
    cpus: Count
    affinity: Annotated[tuple[Count, ...], Field(max_length=4096)]
    pointer_bits: Literal[32, 64]
    unix_time_s: Annotated[float, Field(allow_inf_nan=False)]
    power_sensors: Annotated[tuple[Word, ...], Field(max_length=1024)]
    state: RawState


class InputDescription(Record):
    """One input of the model."""

    name: Word
    shape: Annotated[tuple[Count, ...], Field(max_length=16)]
    dtype: Word


class LoadedLine(Record):
    """The model is loaded; `provider` is what really executes it."""

    kind: Literal["loaded"]
    provider: Word
    settings: Annotated[dict[Word, int | float | bool | Word], Field(max_length=32)]
    runtime_version: Word
    inputs: Annotated[tuple[InputDescription, ...], Field(max_length=64)]


class ColdStartLine(Record):
    """The first inference of a fresh process, in parts."""

    kind: Literal["cold_start"]
    import_ns: Nanoseconds
    load_ns: Nanoseconds
    first_invoke_ns: Nanoseconds


class WarmLine(Record):
    """The warm-up is over and the stride is fixed."""

    kind: Literal["warm"]
    runs: Count
    fastest_ns: Nanoseconds
    stride: Annotated[int, Field(gt=0, lt=2**53)]
    inputs: Annotated[int, Field(gt=0, lt=2**53)]
    inputs_from: Word


class SamplesLine(Record):
    """Kept samples, in order."""

    kind: Literal["samples"]
    start_ns: Annotated[tuple[Nanoseconds, ...], Field(max_length=1000)]
    duration_ns: Annotated[tuple[Nanoseconds, ...], Field(max_length=1000)]


class ProgressLine(Record):
    """Runs so far, and the time they took. `timed` is the last of them."""

    kind: Literal["progress", "timed"]
    runs: Count
    timed_ns: Nanoseconds
    missed: Count = 0


class ContentionLine(Record):
    """What others took from the timed stretches of one process: time in ns over all its threads, and counts."""

    kind: Literal["contention"]
    runs: Count
    ran_ns: Nanoseconds = 0
    waited_ns: Nanoseconds = 0
    preempted: Count = 0
    major_faults: Count = 0
    swapped_pages: Count = 0
    stolen_ns: Nanoseconds = 0


class MeterLine(Record):
    """The power meter that is read on the board."""

    kind: Literal["meter"]
    meter: Word
    rail: Word
    grade: Literal["A", "B", "C", "D"]
    resolution_w: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    gain: Annotated[float, Field(ge=0, le=1)]
    counts: Literal["watts", "joules"]
    problems: Annotated[tuple[Text, ...], Field(max_length=32)] = ()


class NoMeterLine(Record):
    """There is no meter on the board, and what stood in the way of one."""

    kind: Literal["no_meter"]
    problems: Annotated[tuple[Text, ...], Field(max_length=32)]


class PowerLine(Record):
    """Readings of the meter, in order."""

    kind: Literal["power"]
    at_ns: Annotated[tuple[Nanoseconds, ...], Field(max_length=1000)]
    values: Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(max_length=1000)]
    missed: Count


class WindowLine(Record):
    """One window of the energy pass; `busy_ns` is what all cores worked in it, `own_ns` what this process did."""

    kind: Literal["window"]
    phase: Literal["idle", "active"]
    begin_ns: Nanoseconds
    end_ns: Nanoseconds
    runs: Count
    busy_ns: Nanoseconds
    own_ns: Nanoseconds


class PinnedLine(Record):
    """What `--pin-clocks` set: the governor ("" where there is none to set), what it was, and the cores used."""

    kind: Literal["pinned"]
    governor: Word
    before: Texts
    jetson_clocks: bool = False
    affinity: Annotated[tuple[Count, ...], Field(max_length=4096)]


class ProfiledOperator(Record):
    """One node of the graph and its mean time."""

    name: Word
    kind: Word
    mean_us: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    runs: Count


class OperatorsLine(Record):
    """The profile, in the order of the graph."""

    kind: Literal["operators"]
    operators: Annotated[tuple[ProfiledOperator, ...], Field(max_length=1000)]
    runs: Count


class EndToEndLine(Record):
    """Times from a stored input to the predicted class."""

    kind: Literal["end_to_end"]
    duration_ns: Annotated[tuple[Nanoseconds, ...], Field(max_length=1000)]


class OutputsLine(Record):
    """A part of the raw outputs of the first `rows` inputs, in base64."""

    kind: Literal["outputs"]
    rows: Count
    dtype: Word
    data: Annotated[str, StringConstraints(max_length=20_000, pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


class ClockLine(Record):
    """The board's monotonic clock."""

    kind: Literal["clock"]
    at_ns: Nanoseconds


class MemoryLine(Record):
    """/proc/self/status after the runtime's import and at the end; on a Jetson also what the GPU held."""

    kind: Literal["memory"]
    after_import: Text
    at_end: Text
    gpu_kib: Count | None = None
    gpu_from: Word = ""


class EngineLine(Record):
    """The TensorRT engine, and why it was built where it was."""

    kind: Literal["engine"]
    path: Text
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(gt=0, lt=2**53)]
    build_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    built: bool
    why: Text


class PredictionsLine(Record):
    """Predictions for stored inputs from `first` on, and which were right where labels are there."""

    kind: Literal["predictions"]
    first: Count
    predictions: Annotated[tuple[Count, ...], Field(max_length=1000)]
    correct: Annotated[tuple[bool, ...], Field(max_length=1000)] | None


class AccuracyLine(Record):
    """All inputs were predicted. `outputs_sha256` is over the raw outputs in order."""

    kind: Literal["accuracy"]
    inputs: Count
    outputs_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class AliveLine(Record):
    """Nothing to say, but still there."""

    kind: Literal["alive"]


class ErrorLine(Record):
    """Why the job could not be done."""

    kind: Literal["error"]
    code: Word
    message: Text


class EndLine(Record):
    """The job is done."""

    kind: Literal["end"]


AgentLine = (
    StateLine
    | FactsLine
    | LoadedLine
    | ColdStartLine
    | WarmLine
    | SamplesLine
    | ProgressLine
    | ContentionLine
    | MeterLine
    | NoMeterLine
    | PowerLine
    | WindowLine
    | PinnedLine
    | OperatorsLine
    | EndToEndLine
    | OutputsLine
    | ClockLine
    | MemoryLine
    | EngineLine
    | PredictionsLine
    | AccuracyLine
    | AliveLine
    | ErrorLine
    | EndLine
)
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Annotated[AgentLine, Field(discriminator="kind")])


def parse_line(text: str, board: str) -> AgentLine:
    """One line of the agent's output as a record.

    Raises:
        BoardError: it is not one. What the board sent is shown in short and without escape codes.
    """
    try:
        line: AgentLine = _ADAPTER.validate_python(json.loads(text))
    except (ValidationError, ValueError, RecursionError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is not JSON"
        raise BoardError(
            f"{board}: the agent there sent a line that is not one of its records ({printable(str(first), 200)}): "
            f"'{printable(text, 120)}'. Something else writes to its output, or the board is not to be trusted"
        ) from error
    return line
