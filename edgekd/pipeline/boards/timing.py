"""Short interleaved timings of many model files on one board: for calibrating it and for checking candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgekd.board.connection.open import open_session
from edgekd.board.connection.session import Session
from edgekd.board.lock import BoardLock
from edgekd.board.measuring.agent_client import Agent, facts_line
from edgekd.board.measuring.energy_pass import energy_pass
from edgekd.board.measuring.facts import matches_profile, parse_facts, throttle_sample
from edgekd.board.measuring.timed_pass import timed_pass
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import RuntimeEnvironment, provision
from edgekd.core.calibration import quiet_median, tails
from edgekd.core.statistics import percentile
from edgekd.errors import ConfigurationError
from edgekd.pipeline.console import Progress
from edgekd.records import DeviceProfile, MeasurementPlan, PowerTrace, RuntimeName, TailName
from edgekd.store import hash_file

RANDOM_SEED = 0
Say = Callable[[str], None]


@dataclass(frozen=True)
class BoardAddress:
    """How to reach a board."""

    board: str
    identity: Path | None = None
    accept_new_host_key: bool = False


@dataclass(frozen=True)
class EnergyReadings:
    """How power is read: the meter as `--power` names it, a window's length in s, and whose work is on the board."""

    meter: str = "none"
    window_seconds: float = 10.0
    background: Literal["none", "declared"] = "none"


@dataclass(frozen=True)
class Timing:
    """One short timed process: median and 90th percentile of one inference in ms, and whether the board throttled.

    `quiet_ms` is the median of its quietest tenth: see `edgekd.core.calibration.quiet_median`. `tails_ms`: as in
    `TimedRound`.
    """

    median_ms: float
    p90_ms: float
    quiet_ms: float
    throttled: bool
    tails_ms: dict[TailName, float]


@dataclass(frozen=True)
class BoardTimer:
    """A provisioned board of the profile's kind, ready to time files."""

    session: Session
    environment: RuntimeEnvironment
    agent: Agent
    threads: int
    facts: dict[str, Any]
    profile: DeviceProfile

    def put(self, files: Mapping[str, Path], key: str) -> str:
        """Send files (name → path) into one folder there; returns it."""
        return deploy_files(self.session, files, key)

    def time(self, remote: str, sha256: str, seconds: float, warmup_seconds: float = 0.1) -> Timing:
        """Time one file in a fresh process there.

        Raises:
            BoardError: the board failed, or the link.
            BuildError: the runtime refuses the file.
        """
        plan = MeasurementPlan(
            name="quick",
            runtime=self.environment.runtime,
            threads=self.threads,
            min_runs=16,
            min_seconds=seconds,
            processes=1,
            warmup_runs=3,
            warmup_seconds=warmup_seconds,
            max_seconds=max(10.0, 4 * seconds),
        )
        timed = timed_pass(self.agent, self._common(remote, sha256), plan, None, _ignored)
        samples = [duration / 1e6 for duration in timed.durations_ns]
        states = [throttle_sample(state, timed.states[0], 0.0) for state in timed.states]
        return Timing(
            median_ms=percentile(samples, 50),
            p90_ms=percentile(samples, 90),
            quiet_ms=quiet_median(samples),
            throttled=any(state.throttled is True for state in states),
            tails_ms=tails(samples),
        )

    def energy(self, remote: str, sha256: str, how: EnergyReadings, say: Say) -> PowerTrace | None:
        """Read the power of one file at work; None where the meter is `auto` and the board has none.

        Raises:
            BoardError: the meter asked for is not there or fails, or the board failed.
        """
        plan = MeasurementPlan(
            name="quick",
            runtime=self.environment.runtime,
            threads=self.threads,
            min_runs=1,
            min_seconds=1.0,
            max_seconds=1.0,
            meter=how.meter,
            background=how.background,
            energy_windows=1,
            energy_window_seconds=how.window_seconds,
            energy_lead_seconds=min(1.0, how.window_seconds / 5),
        )
        cpus = int(self.facts.get("cpus") or 0)
        return energy_pass(self.agent, self._common(remote, sha256), plan, self.profile, cpus, say).power

    def _common(self, remote: str, sha256: str) -> dict[str, Any]:
        """What every pass over a file is told."""
        return {
            "runtime": self.environment.runtime,
            "model": remote,
            "model_sha256": sha256,
            "threads": self.threads,
            "inputs": None,
            "seed": RANDOM_SEED,
        }


def _ignored(message: str) -> None:
    """Progress inside one short timing is nobody's business."""


@contextmanager
def timer_on(
    address: BoardAddress, profile: DeviceProfile, runtime: RuntimeName, progress: Progress
) -> Iterator[BoardTimer]:
    """Connect, provision and make sure that the board is of the profile's kind.

    Raises:
        ConfigurationError: the board is of another kind: its figures would stand under a wrong name.
        BoardError: unreachable, refused, or without what the runtime needs.
    """
    progress.stage("connect", address.board)
    session = open_session(address.board, identity=address.identity, accept_new_host_key=address.accept_new_host_key)
    with session, BoardLock(session, "edgekd calibrate or fit"):
        progress.stage("provision", f"{runtime} on {session.name}")
        environment = provision(session, runtime, progress.update)
        agent = Agent(session, environment.python, environment.site)
        facts = parse_facts(facts_line(agent))
        matched, reason = matches_profile(facts, session, profile)
        if not matched:
            raise ConfigurationError(
                f"{reason}. What one kind of board takes is never kept under another's name: give the board's own "
                f"profile (`edgekd profile list`, or a TOML file of yours)"
            )
        yield BoardTimer(session, environment, agent, profile.operating_point.threads, facts, profile)


def write_random_files(
    wanted: Mapping[str, Callable[[Path], None]], folder: Path, progress: Progress
) -> dict[str, tuple[Path, str]]:
    """Write random-weight files by name into `folder`; returns each one's path and sha256."""
    written = {}
    for index, (name, write) in enumerate(wanted.items()):
        path = folder / name
        if not path.is_file():
            write(path)
        written[name] = (path, hash_file(path))
        progress.update(f"{index + 1} of {len(wanted)} files written")
    return written
