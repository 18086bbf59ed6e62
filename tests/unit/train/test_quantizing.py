"""When training with rounding follows calibration, and that the better of the two is kept."""

from dataclasses import replace

import pytest
import torch
from digits_task import Quiet, load
from torch import nn

from edgekd.pipeline.quantization.mixed import mix, mixing_may_help
from edgekd.pipeline.quantization.quantizing import DEFAULT_DROP, Allowance, FloatModel, qat_wanted, quantize_float
from edgekd.pipeline.stages import Unkept
from edgekd.records import Quantization, Training


@pytest.mark.parametrize(
    ("wanted", "fp32", "ptq", "allowed", "trained", "said"),
    [
        ("auto", 0.90, 0.90 - DEFAULT_DROP / 2, Allowance(), False, "0.5 are allowed (the default)"),
        ("auto", 0.90, 0.88, Allowance(), True, "PTQ loses 2.00 points to fp32"),
        (
            "auto",
            0.90,
            0.88,
            Allowance(0.95, 0.1, "the teacher", "the budget"),
            False,
            "loses 7.00 points to the teacher",
        ),
        ("auto", 0.90, 0.90, Allowance(0.95, 0.02, "the teacher", "the budget"), True, "2 are allowed (the budget)"),
        ("never", 0.90, 0.10, Allowance(), False, "--qat never"),
        ("always", 0.90, 0.95, Allowance(), True, "--qat always"),
    ],
)
def test_training_follows_only_where_calibration_falls_short(wanted, fp32, ptq, allowed, trained, said):
    found, reason = qat_wanted(wanted, "wi8_ai8", fp32, ptq, allowed)
    assert found is trained
    assert said in reason
    assert reason.startswith("was run" if trained else "was not run")


def test_float16_is_never_trained():
    found, reason = qat_wanted("always", "fp16", 0.9, 0.5, Allowance())
    assert not found and "fp16 rounds too little" in reason


@pytest.fixture(scope="module")
def quantized():
    """A small model, and what calibration and one epoch of training make of it."""
    task = load()
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    ).eval()
    model = FloatModel(
        module, module, torch.zeros(1, 1, 8, 8), task.development(), (1, 8, 8), "wi8_ai8", True, 0, torch.device("cpu")
    )
    recipe = Quantization(qat="always", training=Training(epochs=1, learning_rate=1e-2, ema_decay=0.0))
    return model, quantize_float(model, Unkept(Quiet(), 0), {}, Allowance(), recipe, "min-max")


def test_the_better_on_validation_is_kept_and_each_step_says_what_it_cost(quantized):
    model, rounded = quantized
    report = rounded.report
    assert report.ptq.seconds > 0 and report.qat.seconds > 0
    assert report.qat.detail["epochs"] == 1
    assert report.chosen == ("qat" if report.qat.validation_accuracy > report.ptq.validation_accuracy else "ptq")
    assert rounded.model is rounded.steps[report.chosen]
    assert model.validation_accuracy(rounded.model) == max(
        report.ptq.validation_accuracy, report.qat.validation_accuracy
    )
    assert [layer.kind for layer in report.layers][0] == "conv" and report.layers[0].sqnr_db > 10


@pytest.mark.parametrize(
    ("allowed", "holds", "said"),
    [
        (Allowance(None, 1.0), True, "not needed: "),
        (Allowance(1.5, 0.1, "the teacher", "the budget"), False, "no layer in float can make up for that"),
    ],
    ids=["int8 is good enough", "fp32 itself is not"],
)
def test_nothing_is_kept_in_float_where_that_cannot_help(quantized, allowed, holds, said):
    model, rounded = quantized
    mixed = mix(model, rounded, allowed, Unkept(Quiet(), 0))
    assert mixed.report.mixed.holds is holds and said in mixed.report.mixed.reason
    assert mixed.model is rounded.model and mixed.report.scheme == "wi8_ai8" and mixed.report.mixed.step is None
    assert not mixing_may_help(rounded.report, allowed)


def test_a_search_that_misses_keeps_layers_only_where_they_are_better(quantized):
    model, rounded = quantized
    report = rounded.report
    exact = report.fp32.model_copy(update={"validation_accuracy": 1.0})
    hopeless = replace(rounded, report=report.model_copy(update={"fp32": exact}))
    allowed = Allowance(None, 0.0)
    assert mixing_may_help(hopeless.report, allowed)
    mixed = mix(model, hopeless, allowed, Unkept(Quiet(), 0))
    found, best = mixed.report.mixed, model.validation_accuracy(rounded.model)
    assert not found.holds and bool(found.kept) == (mixed.report.scheme == "wi8_ai8_mixed")
    assert model.validation_accuracy(mixed.model) >= best
    assert ("none is kept" in found.reason) or found.step.validation_accuracy > best
