"""What the shipped profiles promise."""

from __future__ import annotations

import itertools
import math

import pytest

from edgekd.core.architecture import operator_list
from edgekd.core.costs import predict_costs
from edgekd.core.latency_model import predict
from edgekd.core.operators import Operator, OperatorList
from edgekd.core.profile_names import squash
from edgekd.core.spaces import SPACES, every_choice
from edgekd.load import check_profile_file, load_profile, shipped_profiles
from edgekd.records.profile import OPERATOR_KINDS

EXPECTED = {"host", "jetson-agx-orin", "jetson-orin-nano", "rpi-zero2w", "rpi3", "rpi4", "rpi5"}
PROFILES = {path.stem: load_profile(path) for path in shipped_profiles()}
BOARDS = sorted(EXPECTED - {"host"})


def chain(mmacs: float, layers: int) -> OperatorList:
    """Pointwise and depthwise layers in turn, with that many million MACs in all."""
    operators, tensors = [], {"t0": 4096}
    for index in range(layers):
        kind = "depthwise" if index % 2 else "pointwise"
        share = mmacs * 1e6 / layers * (0.2 if kind == "depthwise" else 1.8)
        operators.append(Operator(f"op{index}", kind, int(share), 500, 16, (f"t{index}",), f"t{index + 1}"))
        tensors[f"t{index + 1}"] = 4096
    return OperatorList(tuple(operators), tensors, ("t0",), (f"t{layers}",))


def test_all_the_promised_profiles_ship():
    assert set(PROFILES) == EXPECTED


@pytest.mark.parametrize("path", shipped_profiles(), ids=lambda path: path.stem)
def test_a_shipped_profile_is_free_of_problems_and_named_like_its_file(path):
    assert check_profile_file(path) == []
    assert PROFILES[path.stem].name == path.stem


def test_no_two_profiles_answer_to_one_name():
    owner: dict[str, str] = {}
    for profile in PROFILES.values():
        for known in (profile.name, *profile.aliases):
            assert owner.setdefault(squash(known), profile.name) == profile.name


def test_no_board_is_of_two_kinds():
    prefixes = [(name, model) for name in BOARDS for model in PROFILES[name].match.device_tree_models]
    assert prefixes
    for (first, one), (second, other) in itertools.permutations(prefixes, 2):
        assert first == second or not one.startswith(other)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("rpi3", "Raspberry Pi 3 Model B Rev 1.2"),
        ("rpi3", "Raspberry Pi 3 Model B Plus Rev 1.3"),
        ("rpi4", "Raspberry Pi 4 Model B Rev 1.4"),
        ("rpi5", "Raspberry Pi 5 Model B Rev 1.0"),
        ("rpi-zero2w", "Raspberry Pi Zero 2 W Rev 1.0"),
        ("jetson-orin-nano", "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"),
        ("jetson-orin-nano", "NVIDIA Orin Nano Developer Kit"),
        ("jetson-agx-orin", "NVIDIA Jetson AGX Orin Developer Kit"),
    ],
)
def test_real_model_strings_match_their_profile_alone(name, model):
    matching = [b for b in BOARDS if model.startswith(PROFILES[b].match.device_tree_models)]
    assert matching == [name]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_half_precision_is_claimed_fast_only_where_the_isa_has_it(name):
    profile = PROFILES[name]
    for claim in profile.acceleration:
        if claim.scheme == "fp16" and claim.faster_than_fp32:
            assert {"fphp", "asimdhp"} <= set(profile.soc.isa_features.value)


def test_only_boards_with_a_sensor_claim_to_measure_power():
    grades = {
        name: [sensor.grade for sensor in profile.sensors if sensor.measures == "power"]
        for name, profile in PROFILES.items()
    }
    assert grades["rpi3"] == grades["rpi4"] == grades["rpi-zero2w"] == []
    assert grades["rpi5"] == ["C"]
    assert grades["jetson-orin-nano"] == ["B"]
    assert grades["jetson-agx-orin"] == ["C"]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_shipped_latency_models_are_priors_that_cover_every_operator_kind(name):
    profile = PROFILES[name]
    assert {model.scheme for model in profile.latency_models} == {"wi8_ai8", "fp32"}
    for model in profile.latency_models:
        assert model.provenance == "prior"
        assert set(model.costs) == set(OPERATOR_KINDS)
        assert model.half_width >= 0.7, "nothing was measured on the board: the interval has to say so"
        assert model.threads == profile.operating_point.threads


@pytest.mark.parametrize("name", sorted(EXPECTED))
@pytest.mark.parametrize(("space", "native"), [("ds-cnn", (6, 1, 128)), ("inverted-residual", (1, 28, 28))])
def test_built_in_students_of_several_sizes_fit_the_default_budget_with_their_whole_interval(name, space, native):
    profile = PROFILES[name]
    limits = profile.budget.constraints()
    sizes = []
    for choices in itertools.islice(every_choice(SPACES[space], native, {}), 0, None, 7):
        operators = operator_list(SPACES[space].architecture(choices, native, 10))
        predicted = predict_costs(profile, profile.budget, operators, "wi8_ai8")
        if all(predicted[constraint].high <= limit for constraint, limit in limits.items()):
            sizes.append(operators.macs)
    assert max(sizes) > 20 * min(sizes)


def test_half_a_million_macs_on_a_pi_4_are_predicted_below_a_millisecond_but_not_surely():
    model = next(model for model in PROFILES["rpi4"].latency_models if model.scheme == "wi8_ai8")
    estimate = predict(model, chain(0.5, 12))
    assert estimate.value < 0.5
    assert estimate.low < 0.1
    assert estimate.high > 2 * estimate.value


def test_boards_are_ordered_as_their_cores_are():
    student = chain(5.0, 20)
    value = {name: predict(PROFILES[name].latency_models[0], student).value for name in EXPECTED}
    assert value["rpi-zero2w"] > value["rpi3"] > value["rpi4"] > value["rpi5"]
    assert math.isclose(value["jetson-agx-orin"], value["rpi5"], rel_tol=1.0)
