"""The hardware in the loop: candidates with random weights timed on the board before any of them is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

from edgekd.core.architecture import Architecture, TracedArchitecture, operator_list
from edgekd.core.calibration import level_of
from edgekd.core.costs import latency_model_for, tail_ratio
from edgekd.core.latency_model import predict
from edgekd.core.latency_transfer import transfer_latency_model
from edgekd.core.propose import Proposal
from edgekd.errors import ConfigurationError, InfeasibleBudgetError
from edgekd.pipeline.boards.timing import BoardAddress, BoardTimer, Timing, timer_on, write_random_files
from edgekd.pipeline.console import Progress
from edgekd.records import LATENCY_PERCENTILES, Budget, Candidate, DeviceProfile, LatencyModel, Scheme

RandomScheme = Literal["wi8_ai8", "fp32"]
SCHEME: Literal["wi8_ai8"] = "wi8_ai8"
ROUNDS = 3
ROUND_SECONDS = 0.4
MOST_PASSES = 3
"""Proposing again on a corrected model may bring candidates that were not measured; they are, so many times."""

Propose = Callable[[DeviceProfile], Proposal]
Build = Callable[[Candidate], Architecture]


@dataclass(frozen=True)
class Timed:
    """A model's latency on the board in ms, over interleaved rounds.

    `quiet`: the median of the quietest spell, which is what the latency model predicts. `p50` and `p90` are the median
    over the rounds, with whatever else the board had to do: what a limit is held against.
    """

    quiet: float
    p50: float
    p90: float


@dataclass(frozen=True)
class CheckedCandidate:
    """A candidate's quiet median latency on the board, beside what was predicted for it beforehand, in ms.

    `reason` says which limit it misses, if any: limits are held against what was measured with all that disturbed it.
    """

    candidate: Candidate
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float
    kept: bool
    reason: str

    def row(self) -> dict[str, Any]:
        """As the report keeps it."""
        return {
            "candidate": self.candidate.label,
            "macs": self.candidate.macs,
            "predicted_ms": self.predicted_ms,
            "interval_ms": [self.low_ms, self.high_ms],
            "measured_ms": self.measured_ms,
            "kept": self.kept,
            "reason": self.reason,
        }


def check_on_board(
    proposal: Proposal,
    profile: DeviceProfile,
    budget: Budget,
    build: Build,
    propose: Propose,
    address: BoardAddress,
    progress: Progress,
) -> Checked:
    """Time the candidates to try first, drop those that miss, correct the latency model and propose again with it.

    Also times the largest candidate that is kept as fp32, to tell whether int8 pays on this board. What a search comes
    upon later is timed by `Checked.check.admit`.

    Raises:
        ConfigurationError: the board is of another kind, or the profile has no latency model to correct.
        InfeasibleBudgetError: by the corrected model no student fits, or every candidate missed on the board.
        BoardError: the board failed.
    """
    runtime = profile.operating_point.runtime
    base = latency_model_for(profile, SCHEME, runtime)
    if base is None:
        raise ConfigurationError(f"profile {profile.name} has no {runtime} latency model of {SCHEME} to start from")
    check = BoardCheck(address, base, profile, budget, build, progress)
    with check.board() as board:
        found, corrected = proposal, profile
        for _ in range(MOST_PASSES):
            fresh = [candidate for candidate in found.first if candidate.label not in check.measured]
            if not fresh:
                break
            check.measure(fresh, board)
            corrected = check.corrected()
            found = propose(corrected)
        kept = tuple(candidate for candidate in found.first if check.meets(candidate))
        if not kept:
            raise InfeasibleBudgetError(_all_missed(check.checked()))
        int8_ms, fp32_ms = check.both_schemes(kept[-1], board)
        return Checked(Proposal(found.feasible, kept, found.considered), corrected, check, int8_ms, fp32_ms)


def _all_missed(checked: Sequence[CheckedCandidate]) -> str:
    lines = "\n".join(f"  {one.candidate.label}: {one.measured_ms:.4g} ms, {one.reason}" for one in checked)
    return f"every candidate misses the latency budget when measured on the board with random weights:\n{lines}"


@dataclass(frozen=True)
class _Board:
    """A board that is ready, and where the files for it are written here."""

    timer: BoardTimer
    folder: Path


class BoardCheck:
    """Times candidates on a board, and knows what was measured so far."""

    def __init__(
        self,
        address: BoardAddress,
        base: LatencyModel,
        profile: DeviceProfile,
        budget: Budget,
        build: Build,
        progress: Progress,
    ) -> None:
        self.address, self.base, self.profile = address, base, profile
        self.limits, self.build, self.progress = budget.constraints(), build, progress
        self.measured: dict[str, tuple[Candidate, Timed]] = {}
        """By label."""

    @contextmanager
    def board(self) -> Iterator[_Board]:
        """The board, connected and provisioned."""
        runtime = self.profile.operating_point.runtime
        with (
            timer_on(self.address, self.profile, runtime, self.progress) as timer,
            tempfile.TemporaryDirectory() as folder,
        ):
            yield _Board(timer, Path(folder))

    def admit(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Those that meet the latency limits on the board; what was not measured yet is measured now.

        Raises:
            BoardError: the board failed.
        """
        fresh = [candidate for candidate in candidates if candidate.label not in self.measured]
        if fresh:
            with self.board() as board:
                self.measure(fresh, board)
        for candidate in fresh:
            if reason := self._misses(candidate.label):
                self.progress.update(f"{candidate.label} is left out: {reason}")
        return tuple(candidate for candidate in candidates if self.meets(candidate))

    def measure(self, candidates: Sequence[Candidate], board: _Board) -> None:
        """Time candidates in interleaved rounds."""
        self.progress.stage("board", f"{len(candidates)} candidates with random weights on {board.timer.session.name}")
        files = {f"candidate-{len(self.measured) + i}-int8": (one, SCHEME) for i, one in enumerate(candidates)}
        for candidate, timed in zip(candidates, self._timed(files, board), strict=True):
            self.measured[candidate.label] = (candidate, timed)
            predicted = predict(self.base, operator_list(self.build(candidate)))
            self.progress.update(
                f"{candidate.label}: predicted {predicted.value:.4g} ms, measured {timed.quiet:.4g} ms"
            )

    def _timed(self, files: Mapping[str, tuple[Candidate, RandomScheme]], board: _Board) -> list[Timed]:
        suffix = board.timer.environment.runtime
        wanted = {
            f"{name}.{suffix}": partial(_write, self.build(candidate), scheme)
            for name, (candidate, scheme) in files.items()
        }
        written = write_random_files(wanted, board.folder, self.progress)
        remote = board.timer.put({name: path for name, (path, _) in written.items()}, "candidates")
        rounds: list[list[Timing]] = [[] for _ in written]
        for _ in range(ROUNDS):
            for index, (name, (_, sha256)) in enumerate(written.items()):
                rounds[index].append(board.timer.time(f"{remote}/{name}", sha256, ROUND_SECONDS))
        return [
            Timed(
                quiet=level_of([timing.quiet_ms for timing in one])[0],
                p50=median(timing.median_ms for timing in one),
                p90=median(timing.p90_ms for timing in one),
            )
            for one in rounds
        ]

    def corrected(self) -> DeviceProfile:
        """The profile with its latency model carried over to what was measured; as it was below two measurements."""
        if len(self.measured) < 2:
            return self.profile
        found = list(self.measured.values())
        source = f"{self.base.source}; corrected by {len(found)} candidates measured for this run"
        model = transfer_latency_model(
            self.base,
            [operator_list(self.build(candidate)) for candidate, _ in found],
            [timed.quiet for _, timed in found],
            self.base.model_copy(update={"provenance": "measured", "source": source}),
        )
        # Two or three measurements give Student's t little to go by; around the corrected level the base's own
        # interval still stands.
        model = model.model_copy(update={"half_width": min(model.half_width, self.base.half_width)})
        return self.profile.model_copy(update={"latency_models": (model, *self.profile.latency_models)})

    def meets(self, candidate: Candidate) -> bool:
        """Whether a candidate met the latency limits where it was measured; one that was not is believed."""
        return candidate.label not in self.measured or not self._misses(candidate.label)

    def _misses(self, label: str) -> str:
        _, timed = self.measured[label]
        for name, limit in self.limits.items():
            percentile = LATENCY_PERCENTILES.get(name)
            value = timed.p50 if percentile == 50 else timed.p90
            if percentile in (95, 99):
                value = max(timed.p90, timed.quiet * tail_ratio(self.base, percentile)[0])
            if percentile is not None and value > limit:
                return f"{name} {value:.4g} is over {limit:g}"
            if name == "fps" and 1e3 / timed.p50 < limit:
                return f"fps {1e3 / timed.p50:.4g} is under {limit:g}"
        return ""

    def checked(self) -> tuple[CheckedCandidate, ...]:
        """Predicted and measured, side by side."""
        rows = []
        for label, (candidate, timed) in self.measured.items():
            before = predict(self.base, operator_list(self.build(candidate)))
            reason = self._misses(label)
            rows.append(
                CheckedCandidate(candidate, before.value, before.low, before.high, timed.quiet, not reason, reason)
            )
        return tuple(rows)

    def findings(self) -> dict[str, Any]:
        """What the report keeps: a row for each candidate that was measured, and the labels of those that missed."""
        checked = self.checked()
        return {
            "rows": [one.row() for one in checked],
            "missed": [one.candidate.label for one in checked if not one.kept],
        }

    def both_schemes(self, candidate: Candidate, board: _Board) -> tuple[float, float]:
        """Quiet median latency of one candidate in int8 and in fp32, in ms, from the same rounds."""
        self.progress.stage("int8 pays?", candidate.label)
        int8, fp32 = self._timed({"pays-int8": (candidate, SCHEME), "pays-fp32": (candidate, "fp32")}, board)
        return int8.quiet, fp32.quiet


@dataclass(frozen=True)
class Checked:
    """What the board left of a proposal, the profile with the model corrected for this run, and the int8 check."""

    proposal: Proposal
    profile: DeviceProfile
    check: BoardCheck
    int8_ms: float | None
    fp32_ms: float | None


def _write(architecture: Architecture, scheme: RandomScheme, path: Path) -> None:
    from edgekd.convert.random_student import write_random_student
    from edgekd.nn.students import Student, example_input

    mixes = scheme == SCHEME and isinstance(architecture, TracedArchitecture) and bool(architecture.float_operators)
    written: Scheme = "wi8_ai8_mixed" if mixes else scheme
    write_random_student(Student(architecture).eval(), example_input(architecture), path, written)
