"""The graph of a file that someone named."""

from __future__ import annotations

from pathlib import Path

from edgekd.convert.graph import Graph
from edgekd.convert.model_file import read_graph
from edgekd.errors import BuildError, ConfigurationError


def graph_of(path: Path) -> Graph:
    """The graph of a .tflite or .onnx file.

    Raises:
        ConfigurationError: the file is missing, damaged, or of another kind.
        MissingExtraError: what reads that format is not installed.
    """
    if not path.is_file():
        what = "is a folder, not a model file" if path.is_dir() else "does not exist"
        raise ConfigurationError(f"{path} {what}: name a .tflite or .onnx file")
    try:
        return read_graph(path)
    except BuildError as error:
        raise ConfigurationError(str(error)) from error
