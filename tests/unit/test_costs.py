"""Predicted memory and file size against figures measured on real files."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from edgekd.core.architecture import Architecture, operator_list
from edgekd.core.costs import KIB, MIB, file_size, latency_model_for, peak_memory, predict_all_costs, predict_costs
from edgekd.core.latency_features import Kernels, fitted_features
from edgekd.core.latency_fit import fit_latency_model
from edgekd.core.spaces import SPACES, every_choice
from edgekd.load import load_profile
from edgekd.records import Budget

MEASURED = Path(__file__).resolve().parents[2] / "benchmarks" / "data" / "host_litert_memory.csv"
NATIVE = {"ds-cnn": (6, 1, 128), "inverted-residual": (1, 28, 28)}


def student(label: str) -> Architecture:
    """The architecture of a label like `ds-cnn window=128 width=16`."""
    space, *choices = label.split()
    values = {name: int(value) for name, value in (choice.split("=") for choice in choices)}
    return SPACES[space].architecture(values, NATIVE[space], 10)


def rows() -> list[dict[str, str]]:
    with MEASURED.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_peak_memory_is_near_what_was_measured_and_its_interval_holds_it():
    assert len(rows()) == 48
    for row in rows():
        estimate = peak_memory(operator_list(student(row["student"])), row["scheme"])
        measured = int(row["peak_memory_bytes"]) / MIB
        assert estimate.value == pytest.approx(measured, rel=0.1)
        assert estimate.low < measured < estimate.high


@pytest.mark.parametrize("scheme", ["wi8_ai8", "fp32"])
@pytest.mark.parametrize("file_format", ["tflite", "onnx"])
def test_the_size_of_a_written_file_lies_in_the_predicted_interval(scheme, file_format):
    torch = pytest.importorskip("torch")
    from edgekd.convert.onnx_writer import onnx_bytes
    from edgekd.convert.tflite_writer import tflite_bytes
    from edgekd.nn.quantized.model import quantize_model
    from edgekd.nn.students import Student

    architecture = student("ds-cnn window=64 stem_stride=2 kernel=5 width=24 depth=3")
    torch.manual_seed(0)
    quantized = quantize_model(Student(architecture).eval(), torch.randn(1, *architecture.input_shape), scheme)
    if scheme == "wi8_ai8":
        quantized.calibrate([torch.randn(8, *architecture.input_shape)])
    content = (tflite_bytes if file_format == "tflite" else onnx_bytes)(quantized.network())
    estimate = file_size(operator_list(architecture), scheme, file_format)
    assert estimate.low < len(content) / KIB < estimate.high


def test_only_what_can_be_known_is_predicted():
    profile = load_profile("rpi4")
    operators = operator_list(student("ds-cnn window=64 stem_stride=2 kernel=5 width=24 depth=3"))
    budget = Budget(latency_p99_ms=5.0, fps=20.0, energy_mj=3.0, power_w=4.0, accuracy_min=0.8)
    predicted = predict_costs(profile, budget, operators, "wi8_ai8")
    assert set(predicted) == {"latency_p90_ms", "latency_p99_ms", "fps", "peak_memory_mib", "file_size_kib"}
    assert predicted["fps"].low < predicted["fps"].value < predicted["fps"].high
    without_model = predict_costs(profile, budget, operators, "wi8_ai8", "onnx")
    assert set(without_model) == {"peak_memory_mib", "file_size_kib"}


def test_students_costed_in_one_go_cost_what_each_costs_alone():
    """With a model whose views predict: those work on all students at once."""
    space, native = SPACES["ds-cnn"], NATIVE["ds-cnn"]
    lists = [operator_list(space.architecture(choices, native, 10)) for choices in every_choice(space, native, {})]
    profile = load_profile("rpi4")
    prior = latency_model_for(profile, "wi8_ai8")
    assert prior is not None
    rows = [fitted_features(one, "wi8_ai8", Kernels(16)) for one in lists[::100]]
    fitted = fit_latency_model(
        rows, [1.0 + row["tiled.pointwise"] for row in rows], prior.model_copy(update={"tile": 16})
    )
    assert fitted.measured is not None
    profile = profile.model_copy(update={"latency_models": (fitted,)})
    together = predict_all_costs(profile, Budget(fps=1.0), lists[::40], "wi8_ai8")
    for costs, operators in zip(together, lists[::40], strict=True):
        alone = predict_costs(profile, Budget(fps=1.0), operators, "wi8_ai8")
        assert list(costs) == list(alone)
        for name, estimate in costs.items():
            expected = (alone[name].low, alone[name].value, alone[name].high)
            assert (estimate.low, estimate.value, estimate.high) == pytest.approx(expected, rel=1e-9)
    assert predict_all_costs(profile, Budget(), [], "wi8_ai8") == []


def test_a_measured_latency_model_comes_before_a_prior():
    profile = load_profile("rpi4")
    prior = latency_model_for(profile, "wi8_ai8")
    assert prior is not None
    measured = prior.model_copy(update={"provenance": "measured"})
    both = profile.model_copy(update={"latency_models": (prior, measured)})
    assert latency_model_for(both, "wi8_ai8") == measured
    other_threads = measured.model_copy(update={"threads": 4})
    assert latency_model_for(profile.model_copy(update={"latency_models": (other_threads,)}), "wi8_ai8") is None
