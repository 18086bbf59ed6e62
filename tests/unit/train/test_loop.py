"""The training loop on a small real problem: handwritten digits of scikit-learn, 8x8 pixels."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from edgekd.errors import BuildError, ConfigurationError
from edgekd.records import FitNet, Hard, Hinton, Training
from edgekd.train.examples import Examples, correct, logits_of
from edgekd.train.features import TeacherFeatures
from edgekd.train.loop import Additions, Checkpointing, learning_rate_factor, train
from edgekd.train.objectives import Loss

CPU = torch.device("cpu")
SCHEDULE = Training(epochs=6, learning_rate=1e-2, batch_size=64)


@pytest.fixture(scope="module")
def digits():
    raw = load_digits()
    inputs = torch.from_numpy(raw.images).float()[:, None] / 16
    labels = torch.from_numpy(raw.target)
    return Examples(inputs[:1200], labels[:1200]), Examples(inputs[1200:], labels[1200:])


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(512, 10)
    )


def run(model, digits, schedule=SCHEDULE, objectives=(Hard(),), **options):
    return train(model, *digits, Loss(objectives), schedule, **{"seed": 0, "device": CPU, "title": "digits", **options})


def test_it_learns_and_leaves_the_best_epochs_weights(digits):
    model = network()
    trained = run(model, digits)
    accuracy = float(correct(logits_of(model, digits[1].inputs, CPU), digits[1].labels).float().mean())
    assert accuracy > 0.85
    assert accuracy == pytest.approx(trained.validation_accuracy)
    assert trained.validation_accuracy == max(trained.history)
    assert trained.history[trained.best_epoch] == trained.validation_accuracy
    assert trained.steps == 6 * (1200 // 64)


def test_bfloat16_is_there_on_request_and_leaves_a_cpus_float32_alone_otherwise(digits):
    states = {}
    for mixed in ("auto", False, True):
        model = network()
        trained = run(model, digits, SCHEDULE.model_copy(update={"epochs": 3, "mixed_precision": mixed}))
        states[mixed] = trained.state
        assert trained.validation_accuracy > 0.8
        assert {value.dtype for value in trained.state.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(states["auto"][name], value) for name, value in states[False].items())
    assert any(not torch.equal(states["auto"][name], value) for name, value in states[True].items())


def test_hints_are_learnt_in_bfloat16_too(digits):
    data, _ = digits
    teacher = network(1)
    additions = Additions(features=TeacherFeatures(teacher, data.inputs, CPU))
    schedule = SCHEDULE.model_copy(update={"epochs": 2, "mixed_precision": True})
    trained = run(network(), digits, schedule, objectives=(Hard(), FitNet()), additions=additions)
    assert trained.validation_accuracy > 0.6


def test_a_good_start_is_kept_where_training_only_harms_it(digits):
    model = network()
    started = run(model, digits)
    harm = SCHEDULE.model_copy(update={"epochs": 2, "learning_rate": 0.3, "warmup_fraction": 0.0, "ema_decay": 0.0})
    trained = run(model, digits, harm, may_keep_start=True)
    assert max(trained.history) < started.validation_accuracy
    assert (trained.best_epoch, trained.validation_accuracy) == (-1, started.validation_accuracy)
    assert all(torch.equal(started.state[name], value) for name, value in model.state_dict().items())


def test_the_average_of_the_weights_is_what_is_kept(digits):
    schedule = SCHEDULE.model_copy(update={"epochs": 1})
    averaged, last = network(), network()
    run(averaged, digits, schedule)
    run(last, digits, schedule.model_copy(update={"ema_decay": 0.0}))
    assert not torch.equal(averaged.state_dict()["5.weight"], last.state_dict()["5.weight"])


def test_the_same_seed_gives_the_same_weights_and_another_does_not(digits):
    states = []
    for seed in (0, 0, 1):
        model = network()
        run(model, digits, SCHEDULE.model_copy(update={"epochs": 2}), seed=seed)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["5.weight"], states[2]["5.weight"])


def test_patience_stops_and_a_number_of_steps_is_kept_exactly(digits):
    stuck = SCHEDULE.model_copy(update={"epochs": 50, "learning_rate": 1e-12, "patience": 2})
    trained = run(network(), digits, stuck)
    assert trained.epochs < 50
    assert run(network(), digits, max_steps=23).steps == 23


def test_a_nan_stops_with_the_term_and_the_step(digits):
    data, validation = digits
    broken = Examples(data.inputs, data.labels, torch.full((1200, 10), float("nan")))
    with pytest.raises(BuildError, match=r"epoch 1, step 0: the term 'hinton'"):
        run(network(), (broken, validation), objectives=(Hard(), Hinton()))


def test_an_absurd_learning_rate_ends_as_an_error_that_says_so(digits):
    with pytest.raises(BuildError, match="learning rate"):
        run(network(), digits, Training(epochs=20, learning_rate=1e30, clip_norm=1e30))


def test_the_learning_rate_warms_up_to_its_peak_and_falls():
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == factors[10] == 1.0
    assert all(a >= b for a, b in zip(factors[10:], factors[11:], strict=False))
    assert factors[-1] < 0.02


class Stop(Exception):
    """Stands for a power cut."""


def interrupted_then_resumed(digits, path, objectives, additions=Additions(), at=3):
    def cut(message):
        if f"epoch {at}/" in message:
            raise Stop

    options = {"objectives": objectives, "additions": additions, "checkpoint": Checkpointing(path, interval_s=0)}
    with pytest.raises(Stop):
        run(network(), digits, on_progress=cut, **options)
    # Whatever random numbers are drawn in between must not matter, nor the weights that the new process starts from.
    torch.manual_seed(99)
    resumed = network(seed=7)
    trained = run(resumed, digits, **options)
    return resumed, trained


def with_teacher(digits):
    teacher = network(seed=5)
    data, validation = digits
    logits = logits_of(teacher, data.inputs, CPU)
    return (Examples(data.inputs, data.labels, logits), validation), teacher


@pytest.mark.parametrize("at", [1, 3, 6])
def test_a_resumed_run_ends_bit_for_bit_like_one_never_stopped(digits, tmp_path, at):
    taught, _ = with_teacher(digits)
    objectives = (Hard(weight=0.3), Hinton(weight=0.7, weight_end=0.1))
    whole = network()
    expected = run(whole, taught, objectives=objectives)
    model, trained = interrupted_then_resumed(taught, tmp_path / "run.pt", objectives, at=at)
    assert trained.history == expected.history
    assert (trained.steps, trained.best_epoch) == (expected.steps, expected.best_epoch)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in whole.state_dict().items())


def test_regressors_resume_too(digits, tmp_path):
    taught, teacher = with_teacher(digits)
    objectives = (Hard(), FitNet(layers=(("0", "2"),)))
    additions = Additions(features=TeacherFeatures(teacher, digits[0].inputs, CPU))
    whole = network()
    expected = run(whole, taught, objectives=objectives, additions=additions)
    model, trained = interrupted_then_resumed(taught, tmp_path / "run.pt", objectives, additions)
    assert trained.history == expected.history
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_checkpoint_of_another_run_is_refused_and_a_damaged_one_named(digits, tmp_path):
    where = Checkpointing(tmp_path / "run.pt", interval_s=0)
    run(network(), digits, checkpoint=where)
    with pytest.raises(ConfigurationError, match="another seed"):
        run(network(), digits, checkpoint=where, seed=1)
    with pytest.raises(ConfigurationError, match="model"):
        run(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits, checkpoint=where)
    with pytest.raises(ConfigurationError, match="regime"):
        run(network(), digits, checkpoint=Checkpointing(where.path, key="another regime"))
    where.path.write_bytes(where.path.read_bytes()[:1000])
    with pytest.raises(BuildError, match="damaged"):
        run(network(), digits, checkpoint=where)


def test_a_layer_that_does_not_exist_is_refused_with_those_that_do(digits):
    taught, teacher = with_teacher(digits)
    additions = Additions(features=TeacherFeatures(teacher, digits[0].inputs, CPU))
    objectives = (Hard(), FitNet(layers=(("conv9", "2"), ("0", "layer4"))))
    with pytest.raises(ConfigurationError, match="student has no layer 'conv9'") as error:
        run(network(), taught, objectives=objectives, additions=additions)
    told = str(error.value)
    assert "the student has 0, 1, 2" in told and "teacher has no layer 'layer4'" in told
