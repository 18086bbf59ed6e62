import pytest

from edgekd.core.propose import RUNG_RATIO, excess, propose
from edgekd.core.spaces import SPACES
from edgekd.errors import ConfigurationError, InfeasibleBudgetError
from edgekd.load import load_profile, shipped_profiles
from edgekd.records import Budget

SPACE, NATIVE = SPACES["ds-cnn"], (6, 1, 128)


def proposal(budget=None, fixed=None, sizes=6, profile="rpi4"):
    device = load_profile(profile)
    return propose(SPACE, NATIVE, 7, device, budget or device.budget, fixed or {}, sizes)


def test_every_proposed_student_meets_the_budget_at_the_unfavourable_end():
    budget = Budget(latency_p90_ms=1.2, peak_memory_mib=8.4, file_size_kib=20)
    found = proposal(budget)
    assert 0 < len(found.feasible) < found.considered
    for candidate in found.feasible:
        for name, limit in budget.constraints().items():
            assert excess(name, limit, candidate.predicted[name]) <= 1


def test_the_ladder_is_feasible_ascending_and_spaced():
    found = proposal()
    macs = [candidate.macs for candidate in found.first]
    assert len(macs) > 2
    assert all(later >= RUNG_RATIO * earlier for earlier, later in zip(macs, macs[1:], strict=False))
    assert set(candidate.label for candidate in found.first) <= {candidate.label for candidate in found.feasible}


def test_a_looser_budget_never_proposes_fewer():
    tight = {candidate.label for candidate in proposal(Budget(latency_p90_ms=1.0)).feasible}
    loose = {candidate.label for candidate in proposal(Budget(latency_p90_ms=1.5)).feasible}
    assert tight < loose


def test_the_smallest_student_has_the_lowest_upper_end_on_every_shipped_profile():
    for path in shipped_profiles():
        device = load_profile(path)
        found = proposal(Budget(latency_p90_ms=1e3), profile=str(path)).feasible
        ends = [candidate.predicted["latency_p90_ms"].high for candidate in found]
        assert ends[0] == min(ends), device.name


def test_a_budget_well_above_the_prediction_of_a_tiny_student_is_feasible_on_a_carried_over_profile():
    smallest = proposal(Budget(latency_p90_ms=0.5)).feasible[0].predicted["latency_p90_ms"]
    assert smallest.value < 0.5 / 5
    assert smallest.high <= 0.5


def test_it_is_deterministic():
    assert proposal() == proposal()


def test_a_budget_nothing_meets_names_the_nearest_and_what_binds():
    with pytest.raises(InfeasibleBudgetError, match=r"binding: peak_memory_mib limit 1\b.*relax peak_memory_mib to"):
        try:
            proposal(Budget(peak_memory_mib=1))
        except InfeasibleBudgetError as error:
            assert error.exit_code == 1
            raise InfeasibleBudgetError(str(error).replace("\n", " ")) from error


def test_calibrating_is_advised_only_where_it_changes_the_interval():
    advice = "or calibrate the profile for a narrower interval"
    for budget, advised in (
        (Budget(peak_memory_mib=1), False),
        (Budget(file_size_kib=1), False),
        (Budget(latency_p90_ms=0.001), True),
    ):
        with pytest.raises(InfeasibleBudgetError) as caught:
            proposal(budget)
        assert (advice in str(caught.value)) == advised


def test_more_frames_a_second_are_harder():
    with pytest.raises(InfeasibleBudgetError, match="fps"):
        proposal(Budget(fps=1e7))


def test_fixed_choices_hold_and_wrong_ones_are_refused():
    assert {candidate.choices["width"] for candidate in proposal(fixed={"width": 16}).feasible} == {16}
    with pytest.raises(ConfigurationError, match="allowed values are 8, 12"):
        proposal(fixed={"width": 17})
    with pytest.raises(ConfigurationError, match="chooses window"):
        proposal(fixed={"breadth": 16})
