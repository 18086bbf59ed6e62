"""What the command line says of measuring, and the plan that comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekd.board.energy_pass import check_meter
from edgekd.errors import ConfigurationError
from edgekd.records import MeasurementPlan, PlanName, RuntimeName, named_plan


@dataclass(frozen=True)
class MeasuringOptions:
    """How to measure; None takes the plan's own value."""

    max_seconds: float | None = None
    rate_hz: float | None = None
    background: Literal["none", "declared"] = "none"
    pin_clocks: bool = False
    power: str = "auto"
    energy: Literal["gross", "net"] = "gross"


def plan_for(name: PlanName, runtime: RuntimeName, threads: int, options: MeasuringOptions) -> MeasurementPlan:
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
    return plan.model_copy(
        update={
            "max_seconds": options.max_seconds or plan.max_seconds,
            "rate_hz": options.rate_hz,
            "background": options.background,
            "pin_clocks": options.pin_clocks,
            "meter": options.power,
            "energy_judged": options.energy,
        }
    )
