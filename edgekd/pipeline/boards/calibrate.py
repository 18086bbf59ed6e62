"""`edgekd calibrate`: measure sampled students on a board and give its profile a latency model of its own."""

from __future__ import annotations

import datetime
import getpass
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.board.measuring.energy_pass import check_meter
from edgekd.core.architecture import operator_list
from edgekd.core.calibration import calibrated_model, sample_levels, tail_ratios
from edgekd.core.costs import latency_model_for
from edgekd.core.energy_model import LEAST_READINGS, fit_energy_model
from edgekd.core.sampled_students import SampledStudent, sampled_students
from edgekd.errors import ConfigurationError
from edgekd.load import dump_toml, load_profile, shipped_profiles
from edgekd.pipeline.boards.calibration_rounds import (
    CalibratedScheme,
    KeptRounds,
    Measuring,
    read_energy,
)
from edgekd.pipeline.boards.timing import BoardAddress, BoardTimer, EnergyReadings, timer_on
from edgekd.pipeline.console import Progress
from edgekd.records import Calibration, DeviceProfile, EnergyModel, LatencyModel, RuntimeName, SampleLevel
from edgekd.store import write_text


@dataclass(frozen=True)
class CalibrateOptions:
    """What the command line says of a calibration."""

    profile: str
    address: BoardAddress
    minutes: float = 10.0
    runtime: RuntimeName | None = None
    out: Path | None = None
    students: int = 45
    seed: int = 0
    overwrite: bool = False
    scheme: CalibratedScheme = "wi8_ai8"
    energy: EnergyReadings = EnergyReadings()


def calibrate(options: CalibrateOptions, progress: Progress) -> Calibration:
    """Measure students with random weights on a board, fit, validate on a held-out third, write a new profile.

    What was measured is kept beside the new profile until that is written: an interrupted calibration goes on there.

    Raises:
        ConfigurationError: no such profile, a taken or shipped output file, or a board of another kind.
        BoardError: the board failed, or too few students could be measured.
    """
    profile = load_profile(options.profile)
    runtime = options.runtime or profile.operating_point.runtime
    out = output_path(profile, options)
    check_meter(options.energy.meter)
    students = sampled_students(options.students, options.seed)
    started = time.monotonic()
    with timer_on(options.address, profile, runtime, progress) as timer:
        kept = KeptRounds.open(out, students, timer, options.scheme)
        measured = Measuring(timer, students, options.scheme, kept, started + 60 * options.minutes, progress)
        measured.run(out.with_name(f".{out.stem}.students"), f"calibrate-{kept.key[:16]}")
        if options.energy.meter != "none":
            read_energy(measured, kept, options.energy, progress)
        board, version = _board_name(timer), timer.environment.runtime_version
    levels = sample_levels(students, kept.rounds)
    progress.stage("fit", f"{sum(level.role != 'excluded' for level in levels)} students")
    about = _about(profile, runtime, f"{timer.environment.runtime_package} {version}", board, options, len(kept.rounds))
    model = calibrated_model(students, levels, about.model_copy(update={"tails": tail_ratios(kept.rounds)}))
    plot = out.with_suffix(".svg")
    calibration = Calibration(
        profile=profile.name,
        board=board,
        out=str(out),
        plot=str(plot),
        seconds=time.monotonic() - started,
        throttled_rounds=sum(one.throttled for one in kept.rounds),
        remeasured=len(measured.remeasured),
        excluded=sum(level.role == "excluded" for level in levels),
        samples=levels,
        latency_model=model,
        energy_model=_energy_model(model, students, kept, progress),
        energy=tuple(kept.energy),
        notes=tuple(_notes(timer, levels)),
    )
    _write(profile, calibration, out, plot)
    kept.remove()
    return calibration


def _energy_model(
    latency: LatencyModel, students: Sequence[SampledStudent], kept: KeptRounds, progress: Progress
) -> EnergyModel | None:
    usable = [one for one in kept.energy if not one.problems]
    if not kept.energy:
        return None
    if len(usable) < LEAST_READINGS:
        reasons = "; ".join(sorted({problem for one in kept.energy for problem in one.problems}))
        progress.warn(f"energy: only {len(usable)} students could be read, {LEAST_READINGS} are needed: {reasons}")
        return None
    lists = [operator_list(students[one.student].architecture()) for one in usable]
    return fit_energy_model(latency, lists, usable)


def output_path(profile: DeviceProfile, options: CalibrateOptions) -> Path:
    """Where the new profile goes.

    Raises:
        ConfigurationError: a shipped profile's file, or one that is there.
    """
    out = options.out or Path(f"{profile.name.removesuffix('-calibrated')}-calibrated.toml")
    if out.suffix != ".toml":
        raise ConfigurationError(f"--out {out}: a profile's file ends in .toml")
    if any(out.resolve() == path.resolve() for path in shipped_profiles()):
        raise ConfigurationError(f"--out {out} is a profile that ships with edgekd: choose another file")
    if out.exists() and not options.overwrite:
        raise ConfigurationError(f"{out} exists: choose another --out, or give --overwrite")
    return out


def _about(
    profile: DeviceProfile, runtime: RuntimeName, version: str, board: str, options: CalibrateOptions, timings: int
) -> LatencyModel:
    """The record's unfitted fields; the kinds that no student holds keep the base model's costs, scaled."""
    base = latency_model_for(profile, options.scheme, runtime)
    return LatencyModel(
        runtime=runtime,
        runtime_version=version,
        scheme=options.scheme,
        threads=profile.operating_point.threads,
        provenance="measured",
        overhead_ms=base.overhead_ms if base else 0.0,
        costs=base.costs if base else {},
        tile=base.tile if base else None,
        indirect=base.indirect if base else False,
        half_width=0.0,
        samples=0,
        measured_by=getpass.getuser(),
        measured_on=f"{board}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        source=(
            f"edgekd calibrate: {timings} timings of random-weight students on {board}; error table from a fit to two "
            f"thirds of them, coefficients from all (seed {options.seed})"
        ),
    )


def _board_name(timer: BoardTimer) -> str:
    kind = timer.facts.get("device_tree_model") or timer.facts.get("cpu") or timer.facts.get("machine")
    return f"{timer.session.name} ({kind})"


def _notes(timer: BoardTimer, levels: Sequence[SampleLevel]) -> list[str]:
    found = []
    load = timer.facts.get("load_average")
    if load and load[0] > 0.5:
        found.append(f"other work ran on the board: load average {load[0]:.2f} at the start")
    if any(level.role == "excluded" for level in levels):
        found.append(
            "students whose rounds stayed apart, or for whose further rounds there was no time, were left out of "
            "fit and error table"
        )
    return found


def _write(profile: DeviceProfile, calibration: Calibration, out: Path, plot: Path) -> None:
    """The plot first, the profile last: where the profile is, everything is."""
    from edgekd.report.calibration_plot import calibration_svg

    model = calibration.latency_model
    name = profile.name if profile.name.endswith("-calibrated") else f"{profile.name}-calibrated"
    others = tuple(
        one
        for one in profile.latency_models
        if not (
            one.runtime == model.runtime
            and one.scheme == model.scheme
            and one.threads in (None, model.threads)
            and one.provenance == "measured"
        )
    )
    update = {"name": name, "aliases": (), "latency_models": (model, *others)}
    energy = calibration.energy_model
    # An energy model rests on its latency model: without a new reading the old one's scale would be of another fit.
    kept = tuple(
        one
        for one in profile.energy_models
        if (one.runtime, one.scheme, one.threads) != (model.runtime, model.scheme, model.threads)
    )
    update["energy_models"] = (*((energy,) if energy else ()), *kept)
    calibrated = profile.model_copy(update=update)
    write_text(plot, calibration_svg(model, f"{name}: {model.runtime}, {model.scheme}"))
    write_text(out, dump_toml(calibrated))
