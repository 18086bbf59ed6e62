"""Teachers that a user brings as a file."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.errors import ConfigurationError, MissingExtraError
from edgekd.nn.weights import UNREADABLE, load_weights


class BlackBox(nn.Module):
    """A function from inputs (B, C, H, W) to logits (B, K) without layers that could be looked at."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) on the inputs' device."""
        return self._function(inputs).to(inputs.device)


def load_teacher(path: Path, build: Callable[[], nn.Module]) -> nn.Module:
    """The teacher in a file: `.onnx` or `.pt2` (torch.export) as a black box, `.pt` as weights of the task's teacher.

    Raises:
        ConfigurationError: no such file, another ending, or weights that do not fit.
    """
    if not path.is_file():
        raise ConfigurationError(f"teacher {path}: no such file")
    if path.suffix == ".onnx":
        return BlackBox(_onnx(path))
    if path.suffix == ".pt2":
        return BlackBox(_exported(path))
    if path.suffix == ".pt":
        model = build()
        load_weights(model, path, "teacher", "the task's own teacher")
        return model.eval()
    raise ConfigurationError(f"teacher {path}: must end in .onnx, .pt2 (torch.export) or .pt (weights)")


def _exported(path: Path) -> Callable[[Tensor], Tensor]:
    # torch logs the traceback of what it then fails on; the error says it once.
    torch_logger = logging.getLogger("torch.export")
    was_disabled, torch_logger.disabled = torch_logger.disabled, True
    try:
        program = torch.export.load(path).module()
    except (*UNREADABLE, zipfile.BadZipFile) as error:
        raise ConfigurationError(
            f"teacher {path}: not a torch.export program: {type(error).__name__}: {error}".splitlines()[0]
        ) from error
    finally:
        torch_logger.disabled = was_disabled

    def run(inputs: Tensor) -> Tensor:
        try:
            logits: Tensor = program(inputs)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigurationError(
                f"teacher {path}: does not take inputs of shape {tuple(inputs.shape)}: export it with a dynamic batch "
                f"dimension and the task's own input shape: {error}"
            ) from error
        return logits

    return run


def _onnx(path: Path) -> Callable[[Tensor], Tensor]:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "fit") from error
    state = onnxruntime.capi.onnxruntime_pybind11_state
    # ONNX Runtime's errors have no common base of their own.
    failures = tuple(
        value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)
    )
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except failures as error:
        raise ConfigurationError(f"teacher {path}: not an ONNX model that ONNX Runtime reads: {error}") from error
    entry = session.get_inputs()[0]

    def run(inputs: Tensor) -> Tensor:
        array = np.ascontiguousarray(inputs.cpu().numpy(), dtype=np.float32)
        # A file exported for one input at a time is fed one input at a time.
        size = entry.shape[0] if isinstance(entry.shape[0], int) else len(array)
        try:
            parts = [session.run(None, {entry.name: array[at : at + size]})[0] for at in range(0, len(array), size)]
        except failures as error:
            raise ConfigurationError(
                f"teacher {path}: does not take float32 inputs of shape {array.shape[1:]}, the task's own: {error}"
            ) from error
        return torch.from_numpy(np.concatenate(parts))

    return run
