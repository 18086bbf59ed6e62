"""Feeds a file: stored test inputs are float32 NCHW, and become the file's layout and dtype before any timing."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# numpy loads this on first use, which must not fall into what the memory pass ascribes to the model.
import numpy.random

from .wire import AgentError


@dataclass(frozen=True)
class InputSpec:
    """One input of a model. `scale` is None where the file takes real values as they are."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float | None = None
    zero_point: int = 0


def stored_rows(path: Path, name: str) -> tuple[tuple[int, ...], Iterator[np.ndarray]]:
    """Shape of an array in an .npz, and its rows one by one: a board has not the memory for all at once."""
    try:
        archive = zipfile.ZipFile(path)
        member = archive.open(name + ".npy")
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(member)
    except (OSError, KeyError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise AgentError("inputs", f"{path} has no readable array '{name}': {error}") from error
    if fortran and len(shape) > 1 or not shape or dtype.hasobject:
        raise AgentError("inputs", f"{path}: the array '{name}' is not a C-ordered array of numbers")

    def rows() -> Iterator[np.ndarray]:
        row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        with archive, member:
            for index in range(shape[0]):
                try:
                    data = member.read(row_bytes)
                except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
                    raise AgentError("inputs", f"{path}: the array '{name}' is damaged at row {index}") from error
                if len(data) != row_bytes:
                    raise AgentError("inputs", f"{path}: the array '{name}' ends at row {index}")
                yield np.frombuffer(data, dtype=dtype).reshape(shape[1:])

    return shape, rows()


def stored_labels(path: Path) -> np.ndarray | None:
    """The labels that belong to the stored inputs, (N,) int64; None where none are stored."""
    with zipfile.ZipFile(path) as archive:
        if "labels.npy" not in archive.namelist():
            return None
    shape, rows = stored_rows(path, "labels")
    if len(shape) != 1:
        raise AgentError("inputs", f"{path}: 'labels' has shape {shape}, not (N,)")
    return np.array([int(row) for row in rows], dtype=np.int64)


def layout_of(spec: InputSpec, row_shape: tuple[int, ...], prefer_nhwc: bool) -> str:
    """Which layout of a (C, H, W) row the model takes: "nhwc" or "nchw"."""
    if len(row_shape) != 3:
        raise AgentError("inputs", f"stored inputs have rows of shape {row_shape}, not (C, H, W)")
    channels, height, width = row_shape
    fits = {"nhwc": (1, height, width, channels), "nchw": (1, channels, height, width)}
    for layout in ("nhwc", "nchw") if prefer_nhwc else ("nchw", "nhwc"):
        if spec.shape == fits[layout]:
            return layout
    raise AgentError(
        "inputs",
        f"the model's input '{spec.name}' has shape {spec.shape}; stored inputs of shape {(1, *row_shape)} fit it "
        "neither as NCHW nor as NHWC",
    )


def for_model(row: np.ndarray, spec: InputSpec, layout: str) -> np.ndarray:
    """A (C, H, W) float32 row as the array that the model takes: with a batch of 1, its layout, its dtype."""
    batch = row[np.newaxis]
    if layout == "nhwc":
        batch = np.transpose(batch, (0, 2, 3, 1))
    if spec.dtype.kind == "f":
        return np.ascontiguousarray(batch, dtype=spec.dtype)
    if spec.scale is None:
        raise AgentError(
            "inputs",
            f"the model's input '{spec.name}' is {spec.dtype} but the file gives no scale for it, so real inputs "
            "cannot be quantized",
        )
    bounds = np.iinfo(spec.dtype)
    # As torch's fake quantization rounds: times the reciprocal, halves to even.
    steps = np.rint(batch.astype(np.float32) * np.float32(1.0 / np.float32(spec.scale))) + spec.zero_point
    return np.ascontiguousarray(np.clip(steps, bounds.min, bounds.max).astype(spec.dtype))


def random_arrays(specs: list[InputSpec], count: int, seed: int) -> list[list[np.ndarray]]:
    """`count` sets of inputs drawn for the model's signature: normal for floats, uniform over the range for bytes."""
    generator = np.random.default_rng(seed)
    sets = []
    for _ in range(count):
        arrays = []
        for spec in specs:
            if spec.dtype.kind == "f":
                values = generator.standard_normal(spec.shape).astype(spec.dtype)
            elif spec.dtype.kind == "b":
                values = generator.integers(0, 2, spec.shape).astype(spec.dtype)
            elif spec.dtype.kind in "iu":
                # Wide integers are mostly indices (tokens, lengths): small ones are valid in more models.
                low, high = (np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max) if spec.dtype.itemsize == 1 else (0, 1)
                values = generator.integers(low, high, spec.shape, endpoint=True).astype(spec.dtype)
            else:
                raise AgentError("inputs", f"no random input can be made for '{spec.name}' of {spec.dtype}")
            arrays.append(np.ascontiguousarray(values))
        sets.append(arrays)
    return sets
