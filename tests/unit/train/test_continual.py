"""A deployed student goes on: from new digits, or with a new teacher; what it forgets is measured and flagged."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from digits_task import SHAPE, load

from edgekd.core.spaces import space_named
from edgekd.errors import ConfigurationError
from edgekd.nn.students import Student
from edgekd.records import Continual, Distillation, Hard, Hinton, Training
from edgekd.tasks import Development, Split
from edgekd.train.distill import HARD_ONLY, train_model
from edgekd.train.regimes import Setting
from edgekd.train.regimes.continual import continual

CPU = torch.device("cpu")
SCHEDULE = Training(epochs=4, learning_rate=1e-2, batch_size=32, ema_decay=0.9)


@pytest.fixture(scope="module")
def task():
    """Digits below five first, the others later."""
    whole = load()
    order = np.argsort(whole.train.labels >= 5, kind="stable")
    return replace(whole, train=Split(whole.train.inputs[order], whole.train.labels[order]))


@pytest.fixture(scope="module")
def architecture(task):
    space = space_named(task.default_space)
    choices = {name: values[-1] for name, values in space.dimensions(task.input_shape).items()} | SHAPE
    return space.architecture(choices, task.input_shape, 10)


def learnt(module, data, task, epochs=4):
    train_model(
        module, data, task.input_shape, HARD_ONLY, SCHEDULE.model_copy(update={"epochs": epochs}), seed=0, device=CPU,
        title="", on_progress=lambda message: None,
    )  # fmt: skip
    return module


@pytest.fixture(scope="module")
def teacher(task):
    torch.manual_seed(0)
    return learnt(task.teacher.build(), task.development(), task)


@pytest.fixture(scope="module")
def deployed(task, architecture):
    """A student of the digits below five, which were all that there was."""
    below = task.train.labels < 5
    few = task.validation.labels < 5
    torch.manual_seed(0)
    return learnt(Student(architecture), Development(task.train.part(below), task.validation.part(few)), task)


@pytest.fixture
def setting(task, architecture, teacher):
    def of(deployed=None, objectives=(Hard(weight=0.3), Hinton(weight=0.7)), of_new_digits=False, **options):
        validation = task.validation
        if of_new_digits:
            validation = validation.part(validation.labels >= 5)
        start = None if deployed is None else "student.pt"
        recipe = Distillation(
            regime="continual", training=SCHEDULE, objectives=objectives, continual=Continual(start=start, **options)
        )
        return Setting(
            data=Development(task.train, validation), native=task.input_shape,
            shape=architecture.input_shape, recipe=recipe,
            teacher=teacher, build_student=lambda: Student(architecture), build_assistant=lambda widening: None,
            train_teacher=lambda seed, share: None, seed=0, device=CPU, deployed=deployed,
        )  # fmt: skip

    return of


def share_of_old(task):
    return float((task.train.labels < 5).mean())


def test_new_digits_alone_make_it_forget_and_that_is_flagged(setting, deployed, task):
    share = share_of_old(task)
    outcome = continual(setting(deployed, (Hard(),), of_new_digits=True, old_share=share, memory_weight=0.0))
    notes = outcome.notes
    assert notes["forgot"]
    assert 0 < notes["forgotten_low"] <= notes["forgotten"] <= notes["forgotten_high"]
    assert notes["forgotten"] == pytest.approx(notes["old_accuracy_before"] - notes["old_accuracy_after"])
    assert "THE STUDENT FORGOT" in outcome.warnings[0]
    assert str(notes["old_checked"]) in outcome.warnings[0]
    assert notes["val_accuracy_after"] == pytest.approx(outcome.trained.validation_accuracy)


def test_memory_makes_it_forget_less(setting, deployed, task):
    share, before = share_of_old(task), {name: value.clone() for name, value in deployed.state_dict().items()}
    forgetful = continual(setting(deployed, (Hard(),), of_new_digits=True, old_share=share, memory_weight=0.0)).notes
    mindful = continual(setting(deployed, of_new_digits=True, old_share=share, memory_weight=3.0)).notes
    assert mindful["forgotten"] < forgetful["forgotten"]
    # The student that was given is not touched.
    assert all(torch.equal(before[name], value) for name, value in deployed.state_dict().items())
    assert mindful["old_accuracy_before"] == forgetful["old_accuracy_before"] > 0.8
    assert mindful["val_accuracy_after"] >= mindful["val_accuracy_before"]


def test_a_new_teacher_without_new_data(setting, deployed, task):
    outcome = continual(setting(deployed, old_share=1.0))
    notes = outcome.notes
    assert notes["old_inputs"] == notes["new_inputs"] == len(task.train) - notes["old_checked"]
    # The teacher knows the other five digits too.
    assert notes["val_accuracy_after"] > notes["val_accuracy_before"] + 0.1
    assert not notes["forgot"]
    assert not outcome.warnings
    assert outcome.total_steps == outcome.trained.steps


def test_the_deployed_student_stays_where_nothing_beats_it(setting, teacher, task, architecture):
    good = learnt(Student(architecture), task.development(), task, epochs=8)
    worse = setting(good, (Hard(),), old_share=0.7, memory_weight=0.0)
    outcome = continual(worse)
    if outcome.notes["start_kept"]:
        assert all(torch.equal(good.state_dict()[n], v) for n, v in outcome.model.state_dict().items())
    assert outcome.notes["val_accuracy_after"] >= outcome.notes["val_accuracy_before"]


def test_what_is_missing_is_said(setting):
    with pytest.raises(ConfigurationError, match="is for a student that is deployed already"):
        continual(setting(old_share=1.0))
    named = setting()
    recipe = named.recipe.model_copy(update={"continual": Continual(start="run")})
    with pytest.raises(ConfigurationError, match="start = 'run' was not loaded"):
        continual(replace(named, recipe=recipe))
