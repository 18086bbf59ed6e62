"""How far files in float are from the torch module they were made from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgekd.convert.inference import run_model
from edgekd.errors import BuildError
from edgekd.nn.quantized.network import Array
from edgekd.records import FileDistance, TorchForm

COMPARED_INPUTS = 200
"""Inputs over which files are held against torch that need not agree with it in (nearly) every class."""
MOST_FLOAT_DISTANCE = 1e-3
"""Most that outputs of an fp32 file may be off, as a share of the outputs' range. Rounding alone makes about 1e-6."""
_LEAST_RANGE = 1e-12


def file_distance(path: Path, inputs: Array, against: TorchForm, expected: Array) -> FileDistance:
    """How far a file's outputs are from torch's, `expected` (N, classes), over inputs (N, C, H, W) float32."""
    found = run_model(path, inputs)
    span = max(float(np.ptp(expected)), float(np.abs(expected).max()), _LEAST_RANGE)
    worst = float(np.abs(found.astype(np.float64) - expected).max())
    return FileDistance(
        path=path.name,
        against=against,
        inputs=len(inputs),
        max_abs=worst,
        share_of_range=worst / span,
        top1_agreement=float(np.mean(found.argmax(1) == expected.argmax(1))),
    )


def require_float_alike(distances: Iterable[FileDistance]) -> None:
    """Refuse fp32 files whose outputs are not the module's.

    Raises:
        BuildError: a file is further off than rounding in float explains, or gives no numbers; it says by how much.
    """
    for distance in distances:
        # Written so that a NaN does not pass.
        if not distance.share_of_range <= MOST_FLOAT_DISTANCE:
            raise BuildError(
                f"{distance.path} does not compute what the module does: over {distance.inputs} inputs its outputs are "
                f"up to {distance.max_abs:.4g} off, {distance.share_of_range:.2%} of their range; at most "
                f"{MOST_FLOAT_DISTANCE:.1%} is rounding. This is a fault of edgekd's: please report it with the module"
            )
