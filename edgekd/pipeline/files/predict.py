"""`edgekd predict`: what a model file would cost on a board, from its graph and the board's profile alone."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from edgekd.convert.operators import operators_of
from edgekd.convert.typed import typed_nodes
from edgekd.core.costs import KIB, latency_model_for, peak_memory
from edgekd.core.energy_model import predict_energy
from edgekd.core.latency_features import TAP_TIERS, wide_depthwise
from edgekd.core.latency_model import operator_latencies_ms, predict
from edgekd.core.operators import BYTES_PER_ELEMENT
from edgekd.errors import ConfigurationError
from edgekd.load import load_profile
from edgekd.pipeline.files.graph import graph_of
from edgekd.records import DeviceProfile, LatencyModel, PredictedOperator, Prediction, RuntimeName, Scheme

_CALIBRATED = ("wi8_ai8", "fp32")
"""Schemes that `edgekd calibrate` takes, its default first."""


def predict_file(path: Path, profile_name: str) -> Prediction:
    """Predict latency, memory and file size of any .tflite or .onnx file on a profile's board.

    Nothing is run: the operators come from the file's graph, the costs from the profile's latency model of the
    file's runtime and scheme. Where the profile has none, `latency_ms` is None and a note says why.

    Raises:
        ConfigurationError: no such file or profile, or a file that is damaged or of another kind.
        BuildError: the file does not say a shape that is needed.
    """
    from edgekd.convert.audit import found_scheme

    runtime = _runtime_of(path)
    profile = load_profile(profile_name)
    graph = graph_of(path)
    operators = operators_of(graph)
    scheme = found_scheme(typed_nodes(graph))
    bytes_as = scheme if scheme in BYTES_PER_ELEMENT else "fp32"
    memory = peak_memory(operators, bytes_as, runtime)
    model = latency_model_for(profile, scheme, runtime)
    energy = predict_energy(profile, operators, scheme, runtime)
    notes = _notes(profile, model, scheme, runtime)
    if energy is None:
        notes.append(f"energy is not measured: `edgekd calibrate --profile {profile.name} --power METER` reads it")
    if any(wide_depthwise(operator) for operator in operators.operators):
        notes.append(
            f"depthwise kernels of over {TAP_TIERS[-1]} taps: int8 runtimes may leave their fast kernels there, and "
            "take ten times what is predicted"
        )
    latency = predict(model, operators) if model is not None else None
    parts_ms = operator_latencies_ms(model, operators) if model is not None else []
    together = sum(parts_ms)
    costs_ms: list[float] | list[None] = parts_ms or [None] * len(operators.operators)
    per_operator = tuple(
        PredictedOperator(
            name=operator.name,
            kind=operator.kind,
            macs=operator.macs,
            parameters=operator.weights + operator.biases,
            latency_ms=cost,
            share=cost / together if cost is not None and together > 0 else None,
        )
        for operator, cost in zip(operators.operators, costs_ms, strict=True)
    )
    return Prediction(
        model=str(path),
        profile=profile.name,
        runtime=runtime,
        scheme=scheme,
        threads=profile.operating_point.threads,
        provenance=model.provenance if model is not None else None,
        source=model.source if model is not None else "",
        confidence=latency.confidence if latency is not None else None,
        latency_ms=latency.value if latency is not None else None,
        interval_ms=(latency.low, latency.high) if latency is not None else None,
        overhead_ms=max(latency.value - together, 0.0) if latency is not None else None,
        energy_mj=energy.value if energy is not None else None,
        energy_interval_mj=(energy.low, energy.high) if energy is not None else None,
        energy="predicted" if energy is not None else "not_measured",
        energy_source=energy.source if energy is not None else "",
        peak_memory_mib=memory.value,
        peak_memory_interval_mib=(memory.low, memory.high),
        file_size_kib=path.stat().st_size / KIB,
        macs=operators.macs,
        parameters=operators.parameters,
        per_operator=per_operator,
        notes=tuple(notes),
    )


def _notes(profile: DeviceProfile, model: LatencyModel | None, scheme: str, runtime: RuntimeName) -> list[str]:
    found = []
    if scheme not in get_args(Scheme):
        found.append(f"the file computes in several number types ({scheme}): edgekd predicts no latency for mixtures")
    elif model is None:
        missing = f"profile {profile.name} has no latency model of {runtime} for {scheme}"
        makes = "makes one" if scheme in _CALIBRATED else f"makes those of {' and '.join(_CALIBRATED)} only"
        found.append(f"{missing}: `{_calibrate(profile, runtime, scheme)}` {makes}")
    elif model.provenance != "measured":
        found.append(
            f"the latency model is a {model.provenance}, not measured on a board of this kind: "
            f"`{_calibrate(profile, runtime, scheme)}` narrows the interval"
        )
    return found


def _calibrate(profile: DeviceProfile, runtime: RuntimeName, scheme: str) -> str:
    """The command that makes a latency model of a runtime, for the scheme where it takes it."""
    parts = [f"edgekd calibrate --profile {profile.name} --board HOST"]
    parts += [f"--runtime {runtime}"] if runtime != profile.operating_point.runtime else []
    parts += [f"--scheme {scheme}"] if scheme in _CALIBRATED[1:] else []
    return " ".join(parts)


def _runtime_of(path: Path) -> RuntimeName:
    if not path.is_file():
        raise ConfigurationError(f"model file {path} does not exist")
    runtimes: dict[str, RuntimeName] = {".tflite": "tflite", ".onnx": "onnx"}
    if path.suffix not in runtimes:
        raise ConfigurationError(f"{path}: edgekd predicts .tflite and .onnx files, not {path.suffix or 'this'}")
    return runtimes[path.suffix]
