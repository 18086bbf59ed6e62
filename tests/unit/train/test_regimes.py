"""Each regime from end to end on a small real task: it learns, it is compared with scratch, and it keeps its word."""

import pytest
import torch
from digits_task import Quiet, load, recipe

from edgekd.errors import ConfigurationError
from edgekd.pipeline.distillation.distill import distill_task
from edgekd.pipeline.distillation.parts import Given
from edgekd.records import (
    REGIMES,
    Adversarial,
    Attention,
    Continual,
    DataFree,
    FitNet,
    Hard,
    Hinton,
    MultiTask,
    MultiTeacher,
    Online,
    Progressive,
    Relational,
    SelfDistillation,
    SemiSupervised,
)
from edgekd.train.regimes import REGIME_FUNCTIONS

SCRATCH = {}
"""Scratch students by their steps, for all tests whose labels and schedule are the same."""


@pytest.fixture(scope="module")
def task():
    return load()


@pytest.fixture(scope="module")
def first(task):
    """Offline with the default objectives; the others take its teacher."""
    return distill_task(recipe(), task, Quiet(), Given(scratch=SCRATCH))


@pytest.fixture
def run(task, first):
    def distil(**options):
        given = Given(teacher=first.teacher, scratch=SCRATCH)
        return distill_task(recipe(**options), task, Quiet(), given).result

    return distil


def test_every_regime_has_a_function():
    assert tuple(REGIME_FUNCTIONS) == REGIMES


def test_offline_learns_and_compares_at_equal_steps(first):
    result = first.result
    assert result.accuracy > 0.6
    assert result.steps == result.scratch_steps == result.total_steps == 4 * (900 // 32)
    assert result.teacher_accuracy > 0.85
    assert result.gain_interval[0] <= result.accuracy - result.scratch_accuracy <= result.gain_interval[1]
    assert 0 < result.ece < 1
    assert 0.5 < result.agreement <= 1
    even = result.slices["even"]
    assert set(even) == {"student", "scratch", "teacher", "inputs", "gain_low", "gain_high"}
    assert even["gain_low"] <= even["student"] - even["scratch"] <= even["gain_high"]
    assert len(result.slices) == 11
    assert (result.recommended == "scratch") == (result.val_gain_interval[1] < 0)


@pytest.mark.slow
@pytest.mark.parametrize("objective", [FitNet(weight=0.5), Attention(weight=10), Relational()], ids=lambda o: o.kind)
def test_features_teach_with_a_cache_as_without(task, first, tmp_path, objective):
    plain, stored = (
        distill_task(
            recipe(epochs=2, objectives=(Hard(), objective)),
            task,
            Quiet(),
            Given(teacher=first.teacher, scratch=SCRATCH, feature_cache=cache),
        )
        for cache in (None, tmp_path)
    )
    assert plain.result.accuracy > 0.3
    assert abs(plain.result.accuracy - stored.result.accuracy) < 0.05
    assert list(tmp_path.glob("*/*.npy"))
    # Regressors are thrown away: what is left is the student alone.
    assert plain.result.params == first.result.params


def test_curriculum_takes_equally_many_steps(run):
    result = run(regime="curriculum")
    assert result.accuracy > 0.6
    assert result.steps == result.scratch_steps


@pytest.mark.slow
def test_born_again_generations_and_the_own_average(run):
    born = run(regime="self", self_distillation=SelfDistillation(generations=2))
    assert born.accuracy > 0.6
    assert born.total_steps == 2 * born.steps
    assert {"generation_1_val_accuracy", "generation_2_val_accuracy"} <= set(born.notes)
    average = run(regime="self", self_distillation=SelfDistillation(source="average"))
    assert average.accuracy > 0.5
    with pytest.raises(ConfigurationError, match="ema_decay"):
        plain = recipe(regime="self", self_distillation=SelfDistillation(source="average"))
        training = plain.distill.training.model_copy(update={"ema_decay": 0.0})
        distill_task(
            plain.model_copy(update={"distill": plain.distill.model_copy(update={"training": training})}),
            load(),
            Quiet(),
            Given(teacher=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))),
        )


def test_peers_learn_together_and_one_is_kept(run, first):
    result = run(regime="online", online=Online(peers=2))
    assert result.accuracy > 0.6
    assert result.params == first.result.params
    assert result.total_steps == 2 * result.steps


@pytest.mark.slow
def test_an_ensemble_of_teachers_of_different_input_sizes(run):
    result = run(regime="multi_teacher", multi_teacher=MultiTeacher(teachers=2, input_shares=(0.75,)))
    assert result.accuracy > 0.6
    assert result.notes["teachers"] == 2


@pytest.mark.slow
def test_the_assistant_is_wider_than_the_student(run):
    result = run(regime="progressive", progressive=Progressive(widening=2))
    assert result.accuracy > 0.6
    assert result.notes["assistant_parameters"] > result.params
    assert result.total_steps > result.steps


@pytest.mark.slow
@pytest.mark.parametrize("teacher_labels", ["labelled", "all"])
def test_few_labels_and_the_rest_unlabelled(task, teacher_labels):
    options = SemiSupervised(labels=50, teacher_labels=teacher_labels)
    result = distill_task(recipe(epochs=6, regime="semi_supervised", semi_supervised=options), task, Quiet()).result
    assert result.labelled == result.notes["labelled"] == 50
    assert result.notes["unlabelled"] == 850
    assert result.steps == result.scratch_steps
    # What the teacher gives is more than what the few labels alone do.
    assert result.accuracy > result.scratch_accuracy


def test_semi_supervised_without_unlabelled_inputs_says_what_is_missing(run):
    with pytest.raises(ConfigurationError, match="no unlabelled inputs"):
        run(regime="semi_supervised")
    with pytest.raises(ConfigurationError, match="there are writer 0"):
        run(regime="semi_supervised", semi_supervised=SemiSupervised(label_groups=("nobody",)))


@pytest.mark.slow
def test_data_free_learns_something_from_no_real_input(run):
    free = DataFree(inputs=512, iterations=60)
    result = run(epochs=6, regime="data_free", data_free=free, objectives=(Hinton(),))
    assert result.accuracy > 0.3
    assert result.notes["synthesised"] == 512


@pytest.mark.slow
def test_a_generator_makes_inputs_that_teach(run):
    free = DataFree(source="generator", inputs=256, generator_steps=60, disagreement_weight=0.1)
    result = run(epochs=4, regime="data_free", data_free=free, objectives=(Hinton(),))
    assert result.accuracy > 0.2  # of ten classes
    assert result.notes["source"] == "generator"
    assert result.notes["classes_synthesised"] > 5
    behind = result.teacher_val_accuracy - result.val_accuracy
    assert result.notes["val_behind_teacher"] == pytest.approx(behind, abs=1e-6)


@pytest.mark.slow
def test_robust_distillation_is_more_robust_than_scratch(run):
    result = run(epochs=6, regime="adversarial", adversarial=Adversarial(epsilon=0.2))
    assert result.notes["robust_accuracy"] > result.notes["scratch_robust_accuracy"]
    assert result.notes["robust_accuracy"] <= result.accuracy


def test_a_discriminator_of_logits(run):
    result = run(regime="adversarial", adversarial=Adversarial(form="discriminator"))
    assert result.accuracy > 0.6


def test_continual_measures_what_is_forgotten(run):
    result = run(regime="continual", continual=Continual(old_share=0.5))
    assert result.notes["old_inputs"] + result.notes["new_inputs"] < 900
    assert result.notes["forgotten"] == pytest.approx(
        result.notes["old_accuracy_before"] - result.notes["old_accuracy_after"]
    )
    assert result.accuracy > 0.6


@pytest.mark.slow
def test_reverse_leaves_the_teacher_as_it_was(run, task, first):
    before = {name: value.clone() for name, value in first.teacher.state_dict().items()}
    result = run(regime="reverse")
    assert result.accuracy > 0.6
    assert result.notes["help_paid"] == (
        result.notes["teacher_val_accuracy_helped"] > result.notes["teacher_val_accuracy_before"]
    )
    assert all(torch.equal(before[name], value) for name, value in first.teacher.state_dict().items())


@pytest.mark.parametrize("auxiliary", ["inputs", "groups"])
def test_an_auxiliary_head_is_thrown_away(run, first, auxiliary):
    result = run(regime="multi_task", multi_task=MultiTask(auxiliary=auxiliary))
    assert result.accuracy > 0.6
    assert result.params == first.result.params
    assert result.notes["auxiliary_outputs"] == (16 if auxiliary == "inputs" else 4)


def test_a_poor_teacher_is_reported_loudly(task):
    poor = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    progress = Quiet()
    result = distill_task(recipe(epochs=2), task, progress, Given(teacher=poor)).result
    assert any("NO BETTER THAN THE STUDENT" in warning for warning in result.warnings)
    assert list(result.warnings) == progress.warnings


def test_a_teacher_of_other_classes_is_refused(task):
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 7))
    with pytest.raises(ConfigurationError, match="7 outputs, the task 10 classes"):
        distill_task(recipe(), task, Quiet(), Given(teacher=other))


class PowerCut(Exception):
    pass


class CutAt(Quiet):
    """Stops a run when a line of progress says so."""

    def __init__(self, line):
        super().__init__()
        self.line = line

    def update(self, message):
        if self.line in message:
            raise PowerCut


@pytest.mark.slow
@pytest.mark.parametrize("line", ["teacher: epoch 5", "student: epoch 2", "scratch: epoch 4"])
def test_a_distillation_cut_short_goes_on_and_ends_the_same(task, tmp_path, monkeypatch, line):
    monkeypatch.setattr("edgekd.train.loop.Checkpointing.__init__.__defaults__", (0.0, ""))
    whole = distill_task(recipe(epochs=4), task, Quiet())
    with pytest.raises(PowerCut):
        distill_task(recipe(epochs=4), task, CutAt(line), Given(checkpoints=tmp_path))
    resumed = distill_task(recipe(epochs=4), task, Quiet(), Given(checkpoints=tmp_path))
    for name in ("accuracy", "val_accuracy", "scratch_accuracy", "teacher_accuracy", "steps", "agreement", "ece"):
        assert getattr(resumed.result, name) == getattr(whole.result, name)
    for one, other in ((whole.student, resumed.student), (whole.scratch, resumed.scratch)):
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )
    with pytest.raises(ConfigurationError, match="another seed"):
        distill_task(recipe(epochs=5), task, Quiet(), Given(checkpoints=tmp_path))
    # Another regime has checkpoints of its own, and is not handed the offline student.
    given = Given(checkpoints=tmp_path, scratch=SCRATCH)
    other = distill_task(recipe(epochs=4, regime="curriculum"), task, Quiet(), given)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(whole.student.state_dict().values(), other.student.state_dict().values(), strict=True)
    )
