"""What the command line says of measuring, and the plan that comes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgekd.board.measuring.energy_pass import check_meter
from edgekd.errors import ConfigurationError
from edgekd.records import MeasurementPlan, PlanName, Scheme, named_plan
from edgekd.records.base import MeasuredRuntime


@dataclass(frozen=True)
class MeasuringOptions:
    """How to measure; None takes the plan's own value."""

    max_seconds: float | None = None
    rate_hz: float | None = None
    background: Literal["none", "declared"] = "none"
    pin_clocks: bool = False
    power: str = "auto"
    energy: Literal["gross", "net"] = "gross"
    provider: str | None = None
    container: str | None = None


@dataclass(frozen=True)
class BoardOptions:
    """What the command line says of a board and of measuring on it; None takes the profile's.

    `more_boards` are further units of the same kind, measured one after another. `scheme` says what TensorRT is given.
    """

    board: str
    runtime: MeasuredRuntime | None
    threads: int | None
    plan: PlanName
    identity: Path | None
    accept_new_host_key: bool
    measuring: MeasuringOptions = MeasuringOptions()
    more_boards: tuple[str, ...] = ()
    scheme: Scheme | None = None

    def each(self) -> list[BoardOptions]:
        """The same for every board by itself."""
        return [replace(self, board=board, more_boards=()) for board in (self.board, *self.more_boards)]


def plan_for(name: PlanName, runtime: MeasuredRuntime, threads: int, options: MeasuringOptions) -> MeasurementPlan:
    """The named plan with what the command line changes of it.

    Raises:
        ConfigurationError: the time allowed is below what the plan promises, the rate is none, or the meter is none.
    """
    plan = named_plan(name, runtime, threads)
    check_meter(options.power)
    least = plan.min_seconds + plan.settle_seconds
    if options.max_seconds is not None and options.max_seconds < least:
        raise ConfigurationError(
            f"--max-seconds {options.max_seconds:g} is below the {least:g} s that plan {name} takes at least: "
            "allow more, or take a shorter plan"
        )
    if options.rate_hz is not None and not 0 < options.rate_hz <= 1e5:
        raise ConfigurationError(f"--rate-hz {options.rate_hz:g} is no rate: inputs arrive more than 0 times a second")
    if runtime == "tensorrt":
        _refuse_with_trtexec(options)
    if options.pin_clocks and options.container is not None:
        raise ConfigurationError(
            "--pin-clocks cannot be had with --container: a container may not set the board's clocks. Set them outside "
            "of it (jetson_clocks, or the performance governor) and leave --pin-clocks out"
        )
    return plan.model_copy(
        update={
            "max_seconds": options.max_seconds or plan.max_seconds,
            "rate_hz": options.rate_hz,
            "background": options.background,
            "pin_clocks": options.pin_clocks,
            "meter": options.power,
            "energy_judged": options.energy,
            "provider": options.provider,
            "container": options.container,
        }
    )


def _refuse_with_trtexec(options: MeasuringOptions) -> None:
    """Refuse what trtexec, which times by itself, cannot do."""
    cannot = {
        "--rate-hz": options.rate_hz is not None,
        f"--power {options.power}": options.power not in ("auto", "none"),
    }
    for option in [option for option, asked in cannot.items() if asked]:
        raise ConfigurationError(
            f"{option} cannot be had with --runtime tensorrt: trtexec runs back to back, by itself"
        )
