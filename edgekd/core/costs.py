"""Predicts what an operator list costs beside its median latency: tail latency, peak memory, file size.

Tails, memory and file size are priors with wide intervals, until something is measured. Their anchors are in
benchmarks/data: `host_litert_memory.csv` for memory; see each function for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.core.energy_model import JUDGED_GRADES, energy_model_for, predict_energies
from edgekd.core.latency_model import latency_model_for as latency_model_for
from edgekd.core.latency_model import predict_all
from edgekd.core.operators import BYTES_PER_ELEMENT, OperatorList
from edgekd.core.statistics import CONFIDENCE
from edgekd.errors import ConfigurationError
from edgekd.records import (
    LATENCY_PERCENTILES,
    TAIL_NAMES,
    Budget,
    DeviceProfile,
    Estimate,
    Format,
    LatencyModel,
    RuntimeName,
    TailName,
    TailRatio,
)

MIB, KIB = 2**20, 2**10

# Ratio of a percentile to the quiet median: value, lower and upper end. Quiet machines stay near the lower end: 40 int8
# students of 3,000 runs each gave p90 1.01 (1.01 to 1.03 for nine in ten students), p95 1.01 (to 1.04), p99 1.19 (to
# 1.55) on a 2-core x86-64 machine; greatest over least of 201 one-thread runs of ncnn on Pis and Orins is 1.007 in
# the median and 1.02 at the 95th percentile. The upper ends leave room for a board that has other things to do.
# A host that others use too had p90 1.1 to 1.9 times (benchmarks/search): a calibration measures the board's own.
TAIL_RATIOS: dict[TailName, TailRatio] = {
    "p50": (1.0, 1.0, 1.0),
    "p90": (1.03, 1.0, 1.15),
    "p95": (1.05, 1.0, 1.25),
    "p99": (1.2, 1.0, 1.8),
}

# Bytes that a runtime holds beyond its import, whatever the model. LiteRT: 24 random students of 0.004 to 0.6 MB of
# weights in fresh processes, x86-64 (benchmarks/data/host_litert_memory.csv); onnxruntime: one int8 MobileNetV2-like
# model, 14.7 MB in all.
FIXED_BYTES: dict[RuntimeName, float] = {"tflite": 3.55 * MIB, "onnx": 12.5 * MIB}
# Weights are there twice, in the mapped file and packed for the kernels; activations in the arena and padded copies.
WEIGHT_COPIES, ACTIVATION_COPIES, BYTES_PER_OPERATOR = 2.0, 2.0, 4096.0
MEMORY_LOW, MEMORY_HIGH = 0.7, 2.0

# Bytes of a file beside weights and biases: fixed, per operator, per output channel (scales and zero points of weights
# and bias); the key is the format and whether it is float. Fitted to 16 random students written in each way.
FILE_OVERHEADS: dict[tuple[Format, bool], tuple[float, float, float]] = {
    ("tflite", False): (1200, 350, 24),
    ("tflite", True): (1000, 270, 0),
    ("onnx", False): (2100, 1110, 13.4),
    ("onnx", True): (200, 330, 0),
    ("torch", False): (4000, 600, 0),
    ("torch", True): (4000, 600, 0),
}


def predict_costs(
    profile: DeviceProfile,
    budget: Budget,
    operators: OperatorList,
    scheme: str,
    runtime: RuntimeName | None = None,
) -> dict[str, Estimate]:
    """Costs by the name of their budget constraint: p90 latency, memory, file size, and what else `budget` limits.

    Latency intervals are stated at 95 %, the confidence budgets are judged at: widened only later, the upper end of a
    smaller network could lie above that of a larger one.

    Latencies and fps are absent where the profile has no latency model of that runtime and scheme; energy where it has
    no energy model from a meter that a verdict may rest on. Power is always absent.

    Raises:
        ConfigurationError: the latency model has no cost for one of the operators.
    """
    return predict_all_costs(profile, budget, [operators], scheme, runtime)[0]


def predict_all_costs(
    profile: DeviceProfile,
    budget: Budget,
    lists: Sequence[OperatorList],
    scheme: str,
    runtime: RuntimeName | None = None,
) -> list[dict[str, Estimate]]:
    """`predict_costs` of many operator lists in one go, which is far quicker than one by one.

    Raises:
        ConfigurationError: the latency model has no cost for one of the operators.
    """
    runtime = runtime or profile.operating_point.runtime
    found: list[dict[str, Estimate]] = [{} for _ in lists]
    model = latency_model_for(profile, scheme, runtime)
    if model is not None:
        wanted = [
            (name, percentile)
            for name, percentile in LATENCY_PERCENTILES.items()
            if percentile == 90 or getattr(budget, name) is not None
        ]
        for costs, median in zip(found, predict_all(model, lists, CONFIDENCE), strict=True):
            costs.update((name, at_percentile(model, median, percentile)) for name, percentile in wanted)
            if budget.fps is not None:
                costs["fps"] = frames_per_second(at_percentile(model, median, 50))
    energy = energy_model_for(profile, scheme, runtime)
    if budget.energy_mj is not None and energy is not None and energy.grade in JUDGED_GRADES:
        predicted = predict_energies(profile, lists, scheme, runtime, CONFIDENCE)
        if predicted is not None:
            for costs, estimate in zip(found, predicted, strict=True):
                costs["energy_mj"] = estimate
    for costs, operators in zip(found, lists, strict=True):
        costs["peak_memory_mib"] = peak_memory(operators, scheme, runtime)
        costs["file_size_kib"] = file_size(operators, scheme, "tflite" if runtime == "tflite" else "onnx")
    return found


def predict_mixed_costs(
    profile: DeviceProfile, budget: Budget, operators: OperatorList, float_share: float
) -> dict[str, Estimate]:
    """Costs, as `predict_costs`, of a file with int8 and float layers (`wi8_ai8_mixed`), for which there is no model.

    Each lies between that of the whole in int8 and of the whole in fp32, and its interval spans both of theirs; the
    value follows `float_share`, the share of the multiply-accumulates in float. What the conversions between int8 and
    float cost is not in it. What is known of one of the two only is absent.

    Raises:
        ConfigurationError: as `predict_costs`.
    """
    whole, single = (predict_costs(profile, budget, operators, scheme) for scheme in ("wi8_ai8", "fp32"))
    return {name: _between(whole[name], single[name], float_share) for name in whole if name in single}


def _between(whole: Estimate, single: Estimate, share: float) -> Estimate:
    confidence = min(whole.confidence, single.confidence)
    told = f"{100 * share:.0f} % of the multiply-accumulates are in float, so from all in int8 to all in fp32"
    return whole.model_copy(
        update={
            "value": whole.value + share * (single.value - whole.value),
            "low": min(whole.low, single.low),
            "high": max(whole.high, single.high),
            "confidence": confidence,
            "source": f"{told}; {whole.source}",
        }
    )


def tail_ratio(model: LatencyModel, percentile: int) -> TailRatio:
    """A percentile (50, 90, 95 or 99) over the quiet median: value and ends; the model's own, or `TAIL_RATIOS`.

    Never below a lower percentile's: only that may be the model's own.
    """
    lower = (model.tails.get(name, prior) for name, prior in TAIL_RATIOS.items() if name <= TAIL_NAMES[percentile])
    value, low, high = map(max, zip(*lower, strict=True))
    return value, low, high


def at_percentile(model: LatencyModel, median: Estimate, percentile: int) -> Estimate:
    """A latency percentile (50, 90, 95 or 99), in ms, from the quiet median's estimate by a model. See `tail_ratio`.

    Raises:
        ConfigurationError: no ratio is known for that percentile.
    """
    if percentile not in TAIL_NAMES:
        raise ConfigurationError(f"no prediction for the {percentile}th percentile; known: {sorted(TAIL_NAMES)}")
    ratio, low, high = tail_ratio(model, percentile)
    if high == 1:
        return median
    return median.model_copy(
        update={
            "value": median.value * ratio,
            "low": median.low * low,
            "high": median.high * high,
            "source": f"{median.source}; p{percentile} is {ratio:g} ({low:g} to {high:g}) times the quiet median",
        }
    )


def frames_per_second(median: Estimate) -> Estimate:
    """Inferences per second, back to back, from the median latency's estimate in ms."""
    return median.model_copy(
        update={"value": 1e3 / median.value, "low": 1e3 / median.high, "high": 1e3 / median.low},
    )


def peak_memory(operators: OperatorList, scheme: str, runtime: RuntimeName = "tflite") -> Estimate:
    """Peak memory in MiB: VmHWM less the RSS after the runtime's import, in a fresh process.

    The runtime's fixed share, weights twice, the arena of the largest set of live activations twice, and a little
    per operator. Fits the 48 students of host_litert_memory.csv within 10 %; the interval, 0.7 to 2 times, is for
    other architectures and larger graphs.
    """
    arena = operators.peak_live_elements() * BYTES_PER_ELEMENT[scheme]
    total = (
        FIXED_BYTES[runtime]
        + WEIGHT_COPIES * operators.weight_bytes(scheme)
        + ACTIVATION_COPIES * arena
        + BYTES_PER_OPERATOR * len(operators.operators)
    )
    value = total / MIB
    source = f"prior: {runtime}'s fixed {FIXED_BYTES[runtime] / MIB:.1f} MiB + 2 x weights + 2 x live activations"
    return Estimate(
        value=value,
        low=value * MEMORY_LOW,
        high=value * MEMORY_HIGH,
        confidence=0.9,
        basis="predicted",
        source=source,
    )


def file_size(operators: OperatorList, scheme: str, file_format: Format) -> Estimate:
    """File size in KiB: weights and biases, plus quantization parameters and graph (see `FILE_OVERHEADS`).

    Within 9 % of 16 random students of the built-in spaces as edgekd writes them; the interval, 0.85 to 1.3 times, is
    for other writers' habits.
    """
    fixed, per_operator, per_channel = FILE_OVERHEADS[file_format, scheme in ("fp32", "fp16")]
    channels = sum(operator.biases for operator in operators.operators)
    around = fixed + per_operator * len(operators.operators) + per_channel * channels
    value = (operators.weight_bytes(scheme) + around) / KIB
    return Estimate(
        value=value,
        low=0.85 * value,
        high=1.3 * value,
        confidence=0.9,
        basis="predicted",
        source=f"prior: weights plus the metadata of a .{file_format} file as edgekd writes it",
    )
