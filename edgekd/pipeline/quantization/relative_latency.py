"""Whether one model file is faster than another on this machine: both are timed in turns, and their ratio is used."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekd.convert.extras import fit_module
from edgekd.convert.model_file import format_of
from edgekd.records import Estimate

_ROUNDS = 60
_BLOCK_S = 0.01


def latency_ratio(before: Path, after: Path) -> Estimate:
    """CPU time of an inference of `after` over one of `before`, on one thread, batch 1, with a 95 % interval.

    On one thread that is latency without the waits that other work on this machine causes. Each round times a block of
    the one and a block of the other, in changing order; the value is the median of the rounds' ratios, its interval
    that of the sign test.

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    runs = (_runner(before), _runner(after))
    repeats = [_repeats(run) for run in runs]
    ratios = []
    for index in range(_ROUNDS):
        order = (0, 1) if index % 2 else (1, 0)
        seconds = {which: _block(runs[which], repeats[which]) for which in order}
        ratios.append(seconds[1] / seconds[0])
    ratios.sort()
    rank = math.floor((_ROUNDS - 1.96 * math.sqrt(_ROUNDS)) / 2)
    return Estimate(
        value=statistics.median(ratios),
        low=ratios[rank - 1],
        high=ratios[-rank],
        basis="measured",
        source=f"CPU time on one thread of this machine, both files in turns, {_ROUNDS} rounds",
    )


def _repeats(run: Callable[[], object]) -> int:
    for _ in range(3):
        run()
    return max(1, round(_BLOCK_S / max(min(_block(run, 3) for _ in range(5)), 1e-6)))


def _block(run: Callable[[], object], repeats: int) -> float:
    """CPU seconds of one inference on this thread."""
    started = time.thread_time()
    for _ in range(repeats):
        run()
    return (time.thread_time() - started) / repeats


def _runner(path: Path) -> Callable[[], object]:
    if format_of(path) == "tflite":
        interpreter = fit_module("ai_edge_litert.interpreter").Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
        return interpreter.invoke  # type: ignore[no-any-return]
    runtime = fit_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    feed = {source.name: np.zeros(source.shape, np.float32)}
    return lambda: session.run(None, feed)
