"""An energy model from readings of a made-up meter, and what it means for budgets."""

import numpy as np
import pytest

from edgekd.core.architecture import operator_list
from edgekd.core.costs import predict_costs
from edgekd.core.energy import LEAST_WINDOWS
from edgekd.core.energy_model import energy_model_for, fit_energy_model, hindrances, predict_energy
from edgekd.core.latency_calibration import fit_operator_model
from edgekd.core.latency_features import Kernels
from edgekd.core.latency_model import predict
from edgekd.core.sampled_students import sampled_students
from edgekd.load import dump_toml, load_profile
from edgekd.records import Budget, EnergyReading

HOST = load_profile("host")
LISTS = [operator_list(student.architecture()) for student in sampled_students(40, 2)]
TIMES = [0.001 + 0.03 * one.macs / 1e6 + 0.0005 * len(one.operators) for one in LISTS]
LATENCY = fit_operator_model(LISTS[:20], TIMES[:20], HOST.latency_models[0], among=(Kernels(),)).model_copy(
    update={"provenance": "measured"}
)


def readings(count, watts=5.0, noise=0.03, **changes):
    random = np.random.default_rng(0)
    return [
        EnergyReading(
            student=index,
            energy_mj=watts * TIMES[index] * float(np.exp(random.normal(0, noise))),
            mean_w=watts,
            **({"meter": "ina3221", "rail": "VDD_IN", "grade": "B"} | changes),
        )
        for index in range(count)
    ]


def profile_with(model):
    return HOST.model_copy(update={"latency_models": (LATENCY,), "energy_models": (model,)})


@pytest.mark.parametrize("count", [4, 8])
def test_energy_is_power_times_latency_and_its_interval_holds_new_students(count):
    model = fit_energy_model(LATENCY, LISTS[:count], readings(count))
    profile = profile_with(model)
    assert model.samples == count
    held = 0
    for operators, time_ms in zip(LISTS[count:], TIMES[count:], strict=True):
        found = predict_energy(profile, operators, "wi8_ai8")
        assert found.value == pytest.approx(5.0 * time_ms, rel=0.3)
        held += found.low <= 5.0 * time_ms <= found.high
    assert held / len(LISTS[count:]) >= 0.85


def test_a_budget_of_energy_is_predicted_from_an_input_rail_and_never_from_an_estimate():
    budget = Budget(energy_mj=1.0)
    good = profile_with(fit_energy_model(LATENCY, LISTS[:6], readings(6)))
    found = predict_costs(good, budget, LISTS[9], "wi8_ai8")["energy_mj"]
    assert found.low < found.value < found.high
    assert found.confidence == 0.95
    assert "energy_mj" not in predict_costs(good, Budget(), LISTS[9], "wi8_ai8")
    poor = profile_with(fit_energy_model(LATENCY, LISTS[:6], readings(6, grade="D")))
    assert "energy_mj" not in predict_costs(poor, budget, LISTS[9], "wi8_ai8")
    assert predict_energy(poor, LISTS[9], "wi8_ai8") is not None


def test_without_a_model_of_the_scheme_energy_is_unknown():
    profile = profile_with(fit_energy_model(LATENCY, LISTS[:6], readings(6)))
    assert energy_model_for(profile, "fp32") is None
    assert predict_energy(profile, LISTS[0], "fp32") is None
    assert predict_energy(HOST, LISTS[0], "wi8_ai8") is None


def test_too_few_readings_or_of_two_meters_are_refused_and_windows_alone_are_no_hindrance():
    with pytest.raises(ValueError, match="at least 4 readings"):
        fit_energy_model(LATENCY, LISTS[:3], readings(3))
    with pytest.raises(ValueError, match="of one meter"):
        fit_energy_model(LATENCY, LISTS[:4], [*readings(3), readings(4, rail="5V")[3]])
    few = f"1 windows of at least 10 s running, but {LEAST_WINDOWS} are needed"
    assert hindrances([few, "the meter is stuck: every reading is 5 W"]) == (
        "the meter is stuck: every reading is 5 W",
    )


def test_it_goes_into_a_profile_and_comes_back(tmp_path):
    profile = profile_with(fit_energy_model(LATENCY, LISTS[:6], readings(6)))
    path = tmp_path / "mine.toml"
    path.write_text(dump_toml(profile))
    again = load_profile(path)
    assert again.energy_models == profile.energy_models
    assert predict(again.latency_models[0], LISTS[0]).value == pytest.approx(predict(LATENCY, LISTS[0]).value)
