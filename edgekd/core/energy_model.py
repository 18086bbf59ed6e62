"""Energy per inference, carried over from the latency model by what a power meter read."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.core.energy import LEAST_WINDOWS
from edgekd.core.latency_model import latency_model_for, predict_all
from edgekd.core.latency_transfer import Carried, carried_model, carry
from edgekd.core.operators import OperatorList
from edgekd.records import DeviceProfile, EnergyModel, EnergyReading, Estimate, LatencyModel, RuntimeName

JUDGED_GRADES = ("A", "B")
"""Meters that a budget's verdict may rest on."""

LEAST_READINGS = 4
"""Students whose energy a model needs: a level and how far students lie from it."""


def hindrances(problems: Sequence[str]) -> tuple[str, ...]:
    """Which of an energy pass's problems keep a student out of the fit.

    That a single student had too few windows for a verdict is none: here the spread over students is the evidence.
    """
    return tuple(problem for problem in problems if not problem.endswith(f"but {LEAST_WINDOWS} are needed"))


def fit_energy_model(
    latency: LatencyModel,
    lists: Sequence[OperatorList],
    readings: Sequence[EnergyReading],
    confidence: float = 0.9,
) -> EnergyModel:
    """The energy model of students that a meter read.

    Args:
        latency: the latency model of the same board, runtime, scheme and threads.
        lists: the operators of each student that was read.
        readings: what each drew; at least `LEAST_READINGS`, all of one meter.
        confidence: share of new students that the interval is to hold.

    Raises:
        ValueError: too few readings, or of different meters.
    """
    meters = {(one.meter, one.rail, one.grade) for one in readings}
    if len(readings) < LEAST_READINGS or len(meters) != 1:
        raise ValueError(f"needs at least {LEAST_READINGS} readings of one meter, got {len(readings)} of {len(meters)}")
    found = carry(latency, lists, [one.energy_mj for one in readings], confidence)
    first = readings[0]
    return EnergyModel(
        runtime=latency.runtime,
        runtime_version=latency.runtime_version,
        scheme=latency.scheme,
        threads=latency.threads,
        meter=first.meter,
        rail=first.rail,
        grade=first.grade,
        watts=found.scale,
        mj_per_inference=found.overhead,
        mj_per_op=found.per_operator,
        half_width=found.half_width,
        confidence=confidence,
        samples=len(readings),
        held_out_mape_percent=found.held_out_mape_percent,
        measured_by=latency.measured_by,
        measured_on=latency.measured_on,
        source=f"edgekd calibrate: {len(readings)} students read by {first.meter} ({first.rail}, grade {first.grade})",
    )


def energy_model_for(profile: DeviceProfile, scheme: str, runtime: RuntimeName | None = None) -> EnergyModel | None:
    """The profile's energy model for that scheme and runtime at its own threads, or None."""
    wanted, threads = runtime or profile.operating_point.runtime, profile.operating_point.threads
    for model in profile.energy_models:
        if model.runtime == wanted and model.scheme == scheme and model.threads in (None, threads):
            return model
    return None


def predict_energy(
    profile: DeviceProfile,
    operators: OperatorList,
    scheme: str,
    runtime: RuntimeName | None = None,
    confidence: float | None = None,
) -> Estimate | None:
    """Energy of one inference, gross of idle, in mJ, with its interval; None where no meter was ever read."""
    found = predict_energies(profile, [operators], scheme, runtime, confidence)
    return found[0] if found is not None else None


def predict_energies(
    profile: DeviceProfile,
    lists: Sequence[OperatorList],
    scheme: str,
    runtime: RuntimeName | None = None,
    confidence: float | None = None,
) -> list[Estimate] | None:
    """`predict_energy` of many operator lists in one go."""
    model = energy_model_for(profile, scheme, runtime)
    latency = latency_model_for(profile, scheme, runtime)
    if model is None or latency is None:
        return None
    carried = Carried(model.watts, model.mj_per_inference, model.mj_per_op, model.half_width, 0.0)
    about = latency.model_copy(update={"confidence": model.confidence})
    source = f"energy model: {model.meter}, grade {model.grade}, {model.source}"
    found = predict_all(carried_model(latency, carried, about), lists, confidence)
    return [estimate.model_copy(update={"source": source}) for estimate in found]
