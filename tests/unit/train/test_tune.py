"""Choosing objectives by short runs on the validation split."""

import importlib.util
from dataclasses import replace

import pytest
from digits_task import Quiet, load, recipe

from edgekd.errors import ConfigurationError, MissingExtraError
from edgekd.pipeline.distillation.distill import distill_task
from edgekd.pipeline.distillation.parts import Given
from edgekd.pipeline.distillation.tune import CANDIDATES, Choice

OPTUNA = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed")


@pytest.fixture(scope="module")
def teacher():
    return distill_task(recipe(epochs=1), load(), Quiet()).teacher


def chosen(teacher, choice, epochs=8, **distill):
    return distill_task(recipe(epochs=epochs, **distill), load(), Quiet(), Given(teacher=teacher), choice).result


def test_auto_takes_the_kind_with_the_best_validation_accuracy_and_says_why(teacher):
    result = chosen(teacher, Choice())
    assert [tried.objectives[-1] for tried in result.tried] == list(CANDIDATES)
    best = max(result.tried, key=lambda tried: tried.val_accuracy)
    assert result.objectives == best.objectives
    assert result.chosen_because.startswith(f"{best.objectives[-1]} has the best validation accuracy after 3 epochs")
    assert all(kind in result.chosen_because for kind in CANDIDATES)


def test_no_time_to_tune_is_refused(teacher):
    with pytest.raises(ConfigurationError, match="must be above 0"):
        chosen(teacher, Choice(minutes=0))


@pytest.mark.skipif(importlib.util.find_spec("optuna") is not None, reason="optuna is installed")
def test_without_optuna_the_extra_is_named(teacher):
    with pytest.raises(MissingExtraError, match=r"edgekd\[tune\]"):
        chosen(teacher, Choice(minutes=0.1))


@OPTUNA
@pytest.mark.parametrize("search", ["bayes", "random", "grid"])
def test_a_search_keeps_its_trials_and_goes_on_from_them(teacher, tmp_path, search):
    choice = Choice(minutes=0.03, search=search, storage=tmp_path / "trials.log")
    first = chosen(teacher, choice, epochs=4)
    # As --tune-minutes says it, in the recipe too; with more time the same trials are gone on from.
    second = chosen(teacher, replace(choice, minutes=0.04), epochs=4, tune_minutes=0.04)
    assert len(second.tried) > len(first.tried) >= 1
    assert second.tried[: len(first.tried)] == first.tried
    assert "short runs by validation accuracy" in second.chosen_because
    if search != "grid":
        assert first.tried[0].parameters["kind"] == "hinton"
