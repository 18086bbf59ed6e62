import pytest
import torch
from pydantic import ValidationError

from edgekd.errors import ConfigurationError
from edgekd.records import Objective
from edgekd.train.objectives import OBJECTIVES, Loss
from edgekd.train.objectives.signals import Signals


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    return Signals(student, torch.randint(0, 4, (5,), generator=generator), teacher)


@pytest.mark.parametrize("kind", sorted(OBJECTIVES))
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_each_objectives_gradient_equals_finite_differences(kind, temperature):
    signals, objective = batch(), Objective(kind=kind, temperature=temperature)
    assert torch.autograd.gradcheck(
        lambda logits: OBJECTIVES[kind](Signals(logits, signals.labels, signals.teacher_logits), objective),
        (signals.student_logits,),
    )


def test_hinton_equals_its_formula():
    signals, temperature = batch(), 3.0
    student = torch.softmax(signals.student_logits.detach() / temperature, 1)
    teacher = torch.softmax(signals.teacher() / temperature, 1)
    expected = temperature**2 * (teacher * (teacher / student).log()).sum(1).mean()
    found = OBJECTIVES["hinton"](signals, Objective(kind="hinton", temperature=temperature))
    torch.testing.assert_close(found.detach(), expected)


def test_hinton_is_nothing_where_student_and_teacher_agree():
    signals = batch()
    same = Signals(signals.teacher(), signals.labels, signals.teacher())
    assert abs(float(OBJECTIVES["hinton"](same, Objective(kind="hinton")))) < 1e-12


def test_the_loss_is_the_weighted_sum():
    signals = batch()
    hard, soft = (Objective(kind=kind, weight=weight) for kind, weight in (("hard", 0.3), ("hinton", 0.7)))
    both = Loss([hard, soft])(signals)
    torch.testing.assert_close(both, Loss([hard])(signals) + Loss([soft])(signals))


def test_all_unknown_kinds_are_named_with_their_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'hinton'") as error:
        Loss([Objective(kind="hintn"), Objective(kind="hardd")])
    assert "did you mean 'hard'" in str(error.value)
    with pytest.raises(ConfigurationError, match="weight above 0"):
        Loss([Objective(kind="hard", weight=0)])


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValidationError):
        Objective(kind="hinton", temperature=0)


def test_the_culprit_of_a_nan_is_named():
    signals = batch()
    broken = Signals(signals.student_logits, signals.labels, torch.full_like(signals.teacher(), float("nan")))
    loss = Loss([Objective(kind="hard"), Objective(kind="hinton")])
    assert loss.culprit(broken) == "the term 'hinton'"
    logits = Signals(torch.full((5, 4), float("inf")), signals.labels, signals.teacher())
    assert loss.culprit(logits) == "the student's logits"
