"""Reports as real runs make them, from real records and the real judgement."""

from __future__ import annotations

import numpy as np

from edgekd.core.slices import slice_accuracies
from edgekd.core.statistics import percentile
from edgekd.core.verdicts import MEASURED_ONLY, exit_code, judge
from edgekd.records import (
    Ablation,
    AblationRow,
    Accuracy,
    Artifact,
    Budget,
    Candidate,
    Contention,
    DistillationReport,
    Estimate,
    HostParity,
    LayerReport,
    Measurement,
    OperatorTime,
    Parity,
    PowerTrace,
    PowerWindow,
    QuantizationReport,
    QuantizationStep,
    Report,
    Stage,
    ThrottleSample,
    named_plan,
)

HOSTILE = '<script>alert("board")</script>\x1b[31m\x1b]0;owned\x07\u202e'
BUDGET = Budget(
    latency_p50_ms=4.0,
    latency_p90_ms=5.0,
    latency_p99_ms=6.0,
    fps=200,
    peak_memory_mib=16,
    file_size_kib=64,
    accuracy_min=0.75,
    accuracy_drop_max=0.12,
    energy_mj=25,
)
INPUTS = 1840


def accuracy() -> Accuracy:
    random = np.random.default_rng(2)
    hard = random.random(INPUTS)

    def answers(level: float) -> tuple[bool, ...]:
        return tuple(bool(right) for right in hard + random.normal(0, 0.08, INPUTS) < level)

    teacher, scratch, fp32 = answers(0.903), answers(0.827), answers(0.845)
    flips = random.random(INPUTS) < 0.01
    int8 = tuple(bool(right != flip) for right, flip in zip(fp32, flips, strict=True))
    return Accuracy(
        teacher=float(np.mean(teacher)),
        scratch=float(np.mean(scratch)),
        student_fp32=float(np.mean(fp32)),
        student_int8=float(np.mean(int8)),
        inputs=INPUTS,
        teacher_correct=teacher,
        scratch_correct=scratch,
        student_fp32_correct=fp32,
        student_int8_correct=int8,
    )


def measurement(
    board: str = "pi@rack-3",
    runs: int = 700,
    processes: int = 5,
    slowdown: float = 1.0,
    hostile: str = "",
    **changes: object,
) -> Measurement:
    random = np.random.default_rng(1)
    each = runs // processes
    level = random.normal(0, 0.015, (processes, 1))
    samples = 3.1 * slowdown * np.exp(level + random.gumbel(0, 0.06, (processes, each)))
    samples = (samples * np.where(random.random(samples.shape) < 0.01, 1.5, 1.0)).ravel()
    times = np.cumsum(samples) / 1000 * 20 + np.repeat(np.arange(processes), each) * 2.0
    fields: dict[str, object] = {
        "board": board + hostile,
        "matches_profile": "rpi4",
        "runtime": "tflite",
        "runtime_version": "2.3.0" + hostile,
        "provider": "XNNPACK" + hostile,
        "threads": 4,
        "plan": named_plan("standard", "tflite", 4),
        "model_sha256": "ab" * 32,
        "model_path": "student.tflite",
        "samples_ms": tuple(samples),
        "sample_times_s": tuple(times),
        "sample_processes": tuple(int(i) for i in np.repeat(np.arange(processes), each)),
        "sample_stride": 1,
        "runs": max(1, len(samples)),
        "latency_p50_ms": percentile(samples, 50),
        "latency_p90_ms": percentile(samples, 90),
        "latency_p99_ms": percentile(samples, 99),
        "peak_rss_bytes": 52_400_128,
        "peak_memory_bytes": 6_123_520,
        "cold_start_ms": 31.2,
        "accuracy": 0.8443,
        "accuracy_inputs": INPUTS,
        "power": PowerTrace(
            meter="ina3221" + hostile,
            rail="VDD_IN" + hostile,
            grade="B",
            rate_hz=100,
            idle_w=2.7,
            mean_w=5.4,
            energy_mj=16.9,
            interval_mj=(15.8, 18.0),
            trace=tuple((float(t), 2.7 + 2.7 * (30 < t < 82)) for t in np.arange(0, 110, 0.5)),
            windows=tuple(PowerWindow(begin_s=31 + 10 * n, end_s=41 + 10 * n, runs=3195) for n in range(5)),
            net_mj=8.4,
            net_interval_mj=(7.1, 9.7),
            resolution_w=0.04,
            gain=0.015,
        ),
        "contention": Contention(
            preempted_share=0.004, waited_share=0.01, stolen_share=0.0, major_faults=0, swapped=False
        ),
        "host_parity": HostParity(
            inputs=512, bit_exact=True, identical=1.0, max_abs_lsb=0, mean_abs_lsb=0.0, host_runtime_version="2.3.0"
        ),
        "per_operator": (OperatorTime(name="conv1" + hostile, kind="QLinearConv", mean_ms=1.2, share=0.8),),
        "end_to_end_ms": (3.3, 3.4),
        "end_to_end_p50_ms": 3.35,
        "end_to_end_p90_ms": 3.39,
        "early_stopping_p90_ms": 3.5,
        "states": tuple(
            ThrottleSample(at_s=t, temperature_c=48 + 9 * (1 - np.exp(-t / 20)), clock_mhz=1800, throttled=False)
            for t in np.arange(0, times[-1], 1.0)
        ),
        "throttled": False,
        "facts": {
            "before": {
                "model": "Raspberry Pi 4 Model B Rev 1.4" + hostile,
                "kernel": "6.6.31-v8+",
                "governor": ["performance"] * 4,
                "cpu": {"online": "0-3", "max_mhz": 1800},
            },
            "after": {"temperature_c": 56.9, "throttled": "0x0"},
        },
    }
    return Measurement.model_validate(fields | changes)


def predicted() -> dict[str, Estimate]:
    source = "latency model: prior, 2.3.0, an order of magnitude for XNNPACK on a Cortex-A72"
    table = {
        "latency_p50_ms": (1.9, 1.1, 3.3),
        "latency_p90_ms": (2.1, 1.2, 3.8),
        "latency_p99_ms": (2.6, 1.3, 5.2),
        "fps": (510.0, 290.0, 900.0),
        "peak_memory_mib": (5.5, 4.0, 9.0),
    }
    return {
        name: Estimate(value=value, low=low, high=high, basis="predicted", source=source)
        for name, (value, low, high) in table.items()
    }


def student() -> Candidate:
    return Candidate(
        space="ds-cnn-1d",
        choices={"width": 24, "depth": 3, "kernel": 9, "stem_stride": 2},
        parameters=4127,
        macs=391_000,
        predicted=predicted(),
    )


def artifacts() -> tuple[Artifact, ...]:
    rows = [
        ("student.tflite", "tflite", "wi8_ai8", 21_416),
        ("student.onnx", "onnx", "wi8_ai8", 31_870),
        ("student_fp32.tflite", "tflite", "fp32", 24_204),
        ("student_fp32.onnx", "onnx", "fp32", 22_913),
    ]
    return tuple(
        Artifact.model_validate(
            {"path": path, "format": kind, "scheme": scheme, "sha256": f"{i:x}7" * 32, "size_bytes": size}
        )
        for i, (path, kind, scheme, size) in enumerate(rows)
    )


def taught(hostile: str = "") -> dict[str, object]:
    """How a student came about that scratch beat: distillation, quantization, slices and candidates on a board."""
    right = accuracy()
    right = right.model_copy(
        update={
            "distilled": right.student_fp32,
            "distilled_correct": right.student_fp32_correct,
            "student_fp32": right.scratch,
            "student_fp32_correct": right.scratch_correct,
        }
    )
    classes = np.arange(INPUTS) % 20
    masks = {f"class {name}{hostile}": classes == name for name in range(20)}
    row = AblationRow(
        name="hinton alone",
        objectives=("hinton",),
        accuracies=(0.84, 0.85),
        mean=0.845,
        spread=0.007,
        gain=0.01,
        gain_interval=(-0.08, 0.1),
        agreement=0.9,
        ece=0.03,
        seconds=12.0,
    )
    step = QuantizationStep(validation_accuracy=0.82, seconds=8.0, cpu_seconds=8.0, detail={"observer": "mse"})
    layer = LayerReport(
        layer="stem" + hostile, kind="conv", damage_nats=1e-3, sqnr_db=31.0, low=-1, high=3, saturated=0.01
    )
    checked = {
        "candidate": "width=8" + hostile,
        "predicted_ms": 1.0,
        "interval_ms": [0.5, 2.0],
        "measured_ms": 2.5,
        "kept": False,
        "reason": "latency_p90_ms 2.5 is over 2",
    }
    return {
        "accuracy": right.model_copy(update={"slices": slice_accuracies(right, masks)}),
        "distillation": DistillationReport(
            regime="offline",
            objectives=("hard", "hinton"),
            labelled=4106,
            teacher_val_accuracy=0.9,
            val_accuracy=0.8,
            scratch_val_accuracy=0.83,
            val_gain_interval=(-0.05, -0.01),
            verdict="distillation hurt",
            kept="scratch",
            teacher_val_ece_before=0.1,
            teacher_val_ece_after=0.02,
            agreement=0.8,
            ece=0.03,
            notes={"peers" + hostile: 2},
            ablation=Ablation(seeds=(0, 1), rows=(row,)),
        ),
        "quantization": QuantizationReport(
            scheme="wi8_ai8",
            fp32=step,
            ptq=step,
            qat=step.model_copy(update={"detail": {"epochs": 6}}),
            qat_reason="was run: --qat always",
            chosen="ptq",
            layers=(layer, layer.model_copy(update={"sqnr_db": None, "saturated": 0.0})),
        ),
        "stages": (Stage(name="board-check", wall_s=1, cpu_s=1, detail={"rows": [checked]}),),
    }


def report(
    found: Measurement | None = None,
    budget: Budget = BUDGET,
    matches: bool = True,
    hostile: str = "",
    **changes: object,
) -> Report:
    """A report of `fit` (no measurement) or of `deploy`."""
    verdicts = judge(
        budget,
        measurement=found,
        predicted=predicted(),
        accuracy=accuracy(),
        file_size_bytes=artifacts()[0].size_bytes,
        profile_matches=matches,
        **({} if found is None else {"basis_allowed": MEASURED_ONLY}),
    )
    fields: dict[str, object] = {
        "edgekd_version": "0.1.0",
        "created_utc": "2026-11-22T12:00:05+00:00",
        "command": "edgekd deploy runs/latest --board pi@rack-3" if found else "edgekd fit --profile rpi4",
        "profile": "rpi4",
        "task": "watch-gestures" + hostile,
        "seed": 0,
        "budget": budget,
        "budget_source": {name: "profile" for name in budget.constraints()},
        "verdicts": verdicts,
        "exit_code": exit_code(verdicts),
        "student": student(),
        "artifacts": artifacts(),
        "accuracy": accuracy(),
        "parity": (
            Parity(
                pair="torch ↔ onnx",
                inputs=INPUTS,
                top1_agreement=1.0,
                max_abs_lsb=1,
                mean_abs_lsb=0.004,
                identical_logits=0.996,
            ),
            Parity(
                pair="onnx ↔ tflite",
                inputs=INPUTS,
                top1_agreement=0.9989,
                max_abs_lsb=2,
                mean_abs_lsb=0.006,
                identical_logits=0.994,
            ),
        ),
        "stages": (
            Stage(name="teacher", wall_s=41.2, cpu_s=52.0, detail={"epochs": 30, "validation": 0.912}),
            Stage(name="distill", wall_s=63.9, cpu_s=75.1, detail={"epochs": 40}),
            Stage(name="quantize", wall_s=12.4, cpu_s=14.0),
            Stage(name="convert", wall_s=66.3, cpu_s=64.8),
        ),
        "warnings": ("the validation split has one subject only: early stopping may follow that subject" + hostile,),
        "measurement": found,
        "data": {"train": 4106, "validation": 1195, "test": INPUTS, "split": "by subject"},
    }
    return Report.model_validate(fields | changes)
