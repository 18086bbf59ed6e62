"""A model file, by its suffix: its format, and its graph."""

from __future__ import annotations

from pathlib import Path

from edgekd.convert.graph import Graph
from edgekd.convert.onnx_reader import read_onnx
from edgekd.convert.tflite_reader import read_tflite
from edgekd.errors import BuildError
from edgekd.records import Format


def format_of(path: Path) -> Format:
    """The format that a file's suffix names.

    Raises:
        BuildError: neither .tflite nor .onnx.
    """
    suffixes: dict[str, Format] = {".tflite": "tflite", ".onnx": "onnx"}
    if path.suffix not in suffixes:
        raise BuildError(f"{path}: unknown kind of model file '{path.suffix}'; expected .tflite or .onnx")
    return suffixes[path.suffix]


def read_graph(path: Path) -> Graph:
    """The graph of a .tflite or .onnx file.

    Raises:
        BuildError: the file is missing, truncated, or not of the format its suffix names.
        MissingExtraError: what reads that format is not installed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BuildError(f"{path}: cannot be read: {error.strerror}") from error
    if format_of(path) == "tflite":
        return read_tflite(content, str(path))
    return read_onnx(content, str(path))
