"""Independent labels and values: each regime learns from them, or refuses by name and says what works."""

from dataclasses import replace

import garments_task
import numpy as np
import pytest
import rotation_task
import torch
from torch import nn

from edgekd.core.spaces import space_named
from edgekd.errors import ConfigurationError
from edgekd.nn.students import Student
from edgekd.records import (
    REGIMES,
    Attention,
    Continual,
    Curriculum,
    DataFree,
    Distillation,
    Dkd,
    FitNet,
    Hard,
    Hinton,
    MultiTask,
    MultiTeacher,
    Relational,
    SelfDistillation,
    SemiSupervised,
    Training,
)
from edgekd.tasks.check import check_task
from edgekd.train.calibration import expected_calibration_error, fit_scaling
from edgekd.train.distill import HARD_ONLY, train_model
from edgekd.train.examples import examples_of, labels_of, logits_of
from edgekd.train.metrics import METRICS
from edgekd.train.regimes import REGIME_FUNCTIONS, Setting, hide_labels, why_without_features

CPU = torch.device("cpu")
CLASSES_ONLY = {"data_free", "adversarial"}
STUDENTS = {
    "signal": {"window": 64, "stem_stride": 2, "kernel": 5, "width": 8, "depth": 1},
    "image": {"resolution": 14, "stem_stride": 1, "kernel": 3, "width": 4, "depth": 1, "expansion": 2},
}
SCHEDULE = Training(epochs=2, learning_rate=1e-2, batch_size=32, ema_decay=0.9)


def architecture(task, widening=1):
    space = space_named(task.default_space)
    dimensions = space.dimensions(task.input_shape)
    choices = {name: values[-1] for name, values in dimensions.items()} | {
        name: value for name, value in STUDENTS[task.kind].items() if name in dimensions
    }
    choices["width"] = next(width for width in dimensions["width"] if width >= widening * choices["width"])
    return space.architecture(choices, task.input_shape, len(task.classes))


def trained_teacher(task, seed=0):
    torch.manual_seed(seed)
    teacher = task.teacher.build()
    train_model(
        teacher, task.development(), task.input_shape, HARD_ONLY, task.teacher.training, seed=seed, device=CPU,
        title="teacher", on_progress=lambda message: None,
    )  # fmt: skip
    return teacher


@pytest.fixture(scope="module", params=[rotation_task, garments_task], ids=["regression", "multi_label"])
def taught(request):
    task = request.param.load()
    check_task(task)
    return task, trained_teacher(task)


@pytest.fixture
def setting(taught):
    task, teacher = taught

    def of(**options):
        ours = architecture(task)
        return Setting(
            data=task.development(),
            native=task.input_shape,
            shape=ours.input_shape,
            recipe=Distillation(**{"training": SCHEDULE, **options}),
            teacher=teacher,
            build_student=lambda: Student(ours),
            build_assistant=lambda widening: Student(architecture(task, widening)),
            train_teacher=lambda seed, share: (trained_teacher(task, seed), task.input_shape),
            seed=0,
            device=CPU,
        )

    return of


OPTIONS = {
    "multi_teacher": {"multi_teacher": MultiTeacher(teachers=2)},
    "self": {"self_distillation": SelfDistillation(generations=2)},
    "multi_task": {"multi_task": MultiTask(auxiliary="inputs")},
    "continual": {"continual": Continual(old_share=0.6)},
}


def merit(setting, model):
    outputs = logits_of(model, setting.validation.inputs, CPU)
    return setting.metric.value(outputs, setting.validation.labels)


@pytest.mark.parametrize("regime", REGIMES)
def test_each_regime_learns_from_them_or_refuses_by_name(setting, regime):
    ours = setting(regime=regime, **OPTIONS.get(regime, {}))
    if regime in CLASSES_ONLY:
        with pytest.raises(ConfigurationError, match=f"'{regime}' is for classes, but the outputs are"):
            REGIME_FUNCTIONS[regime](ours)
        return
    if regime == "semi_supervised":
        labelled, rest = hide_labels(ours.data.train, SemiSupervised(labels=300), seed=0)
        assert (len(labelled), len(rest)) == (300, len(ours.data.train) - 300)
        ours = replace(ours, data=replace(ours.data, train=labelled), unlabelled=rest)
    outcome = REGIME_FUNCTIONS[regime](ours)
    # R2 of a constant is 0 and F1 of chance on these labels below 0.5.
    assert merit(ours, outcome.model) > (0.05 if ours.outputs == "regression" else 0.6)
    assert outcome.trained.validation_accuracy == pytest.approx(merit(ours, outcome.model), abs=1e-5)
    if regime == "semi_supervised":
        assert (outcome.notes["pseudo_labelled_share"] == 0) == (ours.outputs == "regression")


@pytest.mark.parametrize("objective", [Attention(weight=10), FitNet(weight=0.5), Relational()], ids=lambda o: o.kind)
def test_features_teach_them_too(setting, objective):
    ours = setting(objectives=(Hard(), Hinton(weight=0.5), objective))
    model = REGIME_FUNCTIONS["offline"](ours).model
    assert merit(ours, model) > (0.1 if ours.outputs == "regression" else 0.6)


@pytest.mark.parametrize(
    "regime", ["self", "progressive", "curriculum", "semi_supervised", "continual", "reverse", "multi_task"]
)
@pytest.mark.parametrize("taught", [garments_task], indirect=True, ids=["multi_label"])
def test_terms_on_features_count_in_regimes_that_carry_them(setting, regime):
    plain, hints = (Hard(), Hinton()), (Hard(), Hinton(), FitNet(), Attention())
    schedule = SCHEDULE.model_copy(update={"epochs": 1})
    weights = []
    for objectives in (plain, hints):
        ours = setting(regime=regime, objectives=objectives, training=schedule, **OPTIONS.get(regime, {}))
        labelled, rest = hide_labels(ours.data.train, SemiSupervised(labels=300), seed=0)
        ours = replace(ours, data=replace(ours.data, train=labelled), unlabelled=rest)
        assert why_without_features(ours.recipe) is None
        weights.append(REGIME_FUNCTIONS[regime](ours).model.state_dict())
    # Regressors are thrown away: the same weights are there, but others.
    assert weights[0].keys() == weights[1].keys()
    assert any(not torch.equal(weights[0][name], value) for name, value in weights[1].items())


@pytest.mark.parametrize(
    "options",
    [
        {"regime": "online"},
        {"regime": "self", "self_distillation": SelfDistillation(source="average")},
        {"regime": "data_free", "data_free": DataFree(source="generator")},
    ],
    ids=lambda options: options["regime"],
)
def test_regimes_that_leave_features_out_say_why(options):
    assert why_without_features(Distillation(**options))


def test_an_objective_of_classes_is_refused_before_anything_is_trained(setting):
    with pytest.raises(ConfigurationError, match="'dkd' compares distributions over classes, but the outputs are"):
        REGIME_FUNCTIONS["offline"](setting(objectives=(Hard(), Dkd())))


def test_a_lower_error_is_a_higher_score():
    task = rotation_task.load(metric="mae")
    student = Student(architecture(task))
    trained = train_model(
        student, task.development(), architecture(task).input_shape, HARD_ONLY, SCHEDULE, seed=0, device=CPU,
        title="student", on_progress=lambda message: None,
    )  # fmt: skip
    assert trained.validation_accuracy == max(trained.history) < 0
    validation = examples_of(task.validation, architecture(task).input_shape)
    found = METRICS["mae"].value(logits_of(student, validation.inputs, CPU), validation.labels)
    assert found == pytest.approx(-trained.validation_accuracy)


def test_what_has_no_meaning_for_values_is_refused(setting):
    ours = setting(regime="curriculum", curriculum=Curriculum(order_by="confidence"))
    more = setting(regime="multi_teacher", multi_teacher=MultiTeacher(teachers=2, combine="confidence"))
    if ours.outputs == "regression":
        with pytest.raises(ConfigurationError, match="use 'margin'"):
            REGIME_FUNCTIONS["curriculum"](ours)
        with pytest.raises(ConfigurationError, match="use 'mean'"):
            REGIME_FUNCTIONS["multi_teacher"](more)
    else:
        assert merit(ours, REGIME_FUNCTIONS["curriculum"](ours).model) > 0.6
        assert merit(more, REGIME_FUNCTIONS["multi_teacher"](more).model) > 0.6


def test_independent_labels_can_be_calibrated():
    task = garments_task.load(images=200)
    labels = labels_of(task.validation)
    shouted = torch.randn(labels.shape, generator=torch.Generator().manual_seed(0)) + 2 * labels - 1
    before = expected_calibration_error(5 * shouted, labels)
    for how in ("temperature", "vector"):
        scale, shift = fit_scaling(5 * shouted, labels, how)
        assert expected_calibration_error(5 * shouted * scale + shift, labels) < before / 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda labels: labels[:, :1], r"must be \(\d+, 2\), one column for each of turning about x, turning about y"),
        (lambda labels: labels.astype(np.int64), "is int64 and train's int64: independent labels are"),
        (lambda labels: labels * np.float32(1e4), "has a spread of 1e.04: standardise it"),
        (lambda labels: np.where(labels > 0, np.nan, labels), "values are NaN or infinite"),
        (lambda labels: np.zeros_like(labels), "'turning about x' is 0.0 for all"),
        (lambda labels: labels[:, 0], "must be integers, is float32; independent labels are"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(change, said):
    task = rotation_task.load()
    broken = replace(task, train=replace(task.train, labels=change(task.train.labels)))
    with pytest.raises(ConfigurationError, match=said):
        check_task(broken)
    with pytest.raises(ConfigurationError, match="metric: 'f1' is none for outputs that are regression: use r2 or mae"):
        check_task(replace(task, metric="f1"))


def test_a_constant_teacher_of_values_pulls_the_student_to_its_mean():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.level = nn.Parameter(torch.tensor([0.25, -0.5]))

        def forward(self, inputs):
            return self.level.expand(len(inputs), 2)

    task = rotation_task.load()
    ours = architecture(task)
    student = Student(ours)
    logits = logits_of(Constant(), examples_of(task.train, task.input_shape).inputs, CPU)
    train_model(
        student, task.development(), ours.input_shape, (Hinton(),), SCHEDULE.model_copy(update={"ema_decay": 0.0}),
        seed=0, device=CPU, title="student", on_progress=lambda message: None, teacher_logits=logits,
    )  # fmt: skip
    said = logits_of(student, examples_of(task.validation, ours.input_shape).inputs, CPU).mean(0)
    torch.testing.assert_close(said, torch.tensor([0.25, -0.5]), atol=0.15, rtol=0)
