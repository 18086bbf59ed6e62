"""A user's own torch module and the inputs to calibrate it on, from what the command line names."""

from __future__ import annotations

import copy
import pickle
import runpy
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.errors import ConfigurationError
from edgekd.tasks import Development, Split, load_task
from edgekd.train.examples import logits_of
from edgekd.train.objectives import OUTPUTS_IN_WORDS

HELD_BACK_EVERY = 5
"""Of a folder's inputs every fifth is held back: it decides what is kept, and nothing is calibrated on it."""


@dataclass(frozen=True, eq=False)
class CalibrationData:
    """What to calibrate on, what decides, and what is reported.

    `labelled` is false for a folder without labels: then what the float model says stands for the truth.
    """

    name: str
    development: Development
    test: Split
    classes: int | None
    labelled: bool


class Images(nn.Module):
    """A module for signals (N, C, L) as one for images of height 1, (N, C, 1, L)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.training = module.training

    def forward(self, inputs: Tensor) -> Tensor:
        """The module's output."""
        outputs: Tensor = self.module(inputs.squeeze(2))
        return outputs


def taking_ids(module: nn.Module) -> nn.Module:
    """A copy of a module for ids (N, L), integers, that takes images (N, 1, 1, L) of the same numbers in float.

    It is no module around it, so that places in it keep their names.
    """
    taking = copy.deepcopy(module)
    taking.register_forward_pre_hook(_as_ids)
    return taking


def _as_ids(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (arguments[0].flatten(1).long(),)


def load_user_model(reference: str, weights: Path | None) -> nn.Module:
    """What `factory()` of `MODEL.py:factory` returns, with the weights of a torch state dict, in inference mode.

    Raises:
        ConfigurationError: no such file, function or weights, code that raises, or weights of another module.
    """
    file, separator, factory = reference.rpartition(":")
    path = Path(file)
    if not separator or not file.endswith(".py") or not factory:
        raise ConfigurationError(f"{reference!r} is no MODEL.py:factory: name a Python file and a function in it")
    if not path.is_file():
        raise ConfigurationError(f"model file {path} does not exist")
    names = _run(path)
    build = names.get(factory)
    if not callable(build):
        known = ", ".join(sorted(name for name, value in names.items() if callable(value) and name[0] != "_"))
        raise ConfigurationError(f"{path} has no function {factory!r}; it has {known or 'none'}")
    try:
        model = build()
    except Exception as error:  # whatever a user's code raises is its fault, and is shown with its line
        raise ConfigurationError(f"{reference} raised:\n{_where(error, path)}") from error
    if not isinstance(model, nn.Module):
        raise ConfigurationError(f"{reference} returned {type(model).__name__}, not a torch module")
    if weights is not None:
        _load_weights(model, weights)
    return model.eval()


def _run(path: Path) -> dict[str, Any]:
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        return runpy.run_path(str(path), run_name="edgekd_model")
    except Exception as error:  # as above: a user's code
        raise ConfigurationError(f"{path} raised while it was read:\n{_where(error, path)}") from error
    finally:
        sys.path.remove(folder)


def _where(error: BaseException, path: Path) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"  {frame.filename}:{frame.lineno} in {frame.name}: {frame.line}" for frame in frames]
    kept = [line for line in lines if path.name in line] or lines[-1:]
    return "\n".join([*kept, f"  {type(error).__name__}: {error}"])


def _load_weights(model: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise ConfigurationError(f"--weights {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise ConfigurationError(
            f"--weights {path} is no torch state dict that can be read safely (weights_only): {error}"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"--weights {path} do not fit the model: {error}") from error


def load_calibration(name: str, model: nn.Module) -> CalibrationData:
    """The data of `--calib`: a task's name or .py file, else a folder (or one file) of .npy and .npz arrays.

    A .npy holds inputs (N, ...); a .npz `inputs` and, where known, `labels` (N,). Inputs are float32 and
    preprocessed as the model wants them, or integers (N, L), the ids that an embedding reads.

    Raises:
        ConfigurationError: no such task or folder, arrays that do not fit together, or a model that refuses them.
    """
    path = Path(name)
    if not name.endswith(".py") and path.exists():
        return _of_arrays(path, model)
    task = load_task(name, {})
    if task.outputs != "classes":
        raise ConfigurationError(
            f"--calib {name}: the task's outputs are {OUTPUTS_IN_WORDS[task.outputs]}, and `edgekd quantize` judges "
            "classes only so far"
        )
    _require_accepts(model, task.validation.inputs[:1], len(task.classes))
    return CalibrationData(task.name, task.development(), task.test, len(task.classes), labelled=True)


def _of_arrays(path: Path, model: nn.Module) -> CalibrationData:
    files = sorted(path.glob("*.np[yz]")) if path.is_dir() else [path]
    if not files:
        raise ConfigurationError(f"--calib {path} holds no .npy or .npz file")
    parts = [_arrays(file) for file in files]
    shapes = {part.shape[1:] for part, _ in parts}
    if len(shapes) > 1:
        raise ConfigurationError(f"--calib {path}: the inputs differ in shape: {sorted(shapes)}")
    inputs = np.concatenate([part for part, _ in parts])
    if len(inputs) < 2 * HELD_BACK_EVERY:
        raise ConfigurationError(f"--calib {path}: {len(inputs)} inputs are too few, at least {2 * HELD_BACK_EVERY}")
    if inputs.ndim == 3:
        inputs = inputs[:, :, None]
    outputs = _require_accepts(model, inputs[:1], None)
    labelled = all(labels is not None for _, labels in parts)
    if labelled:
        labels = np.concatenate([labels for _, labels in parts if labels is not None])
    else:
        labels = np.zeros(len(inputs), np.int64)
    held = np.arange(len(inputs)) % HELD_BACK_EVERY == 0
    kept, back = (Split(inputs[rows], labels[rows]) for rows in (~held, held))
    return CalibrationData(str(path), Development(kept, back), back, outputs if labelled else None, labelled)


def _arrays(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--calib {path} cannot be read: {error}") from error
    if isinstance(loaded, np.ndarray):
        inputs, labels = loaded, None
    elif "inputs" in loaded:
        inputs, labels = loaded["inputs"], loaded.get("labels")
    else:
        raise ConfigurationError(f"--calib {path}: has {', '.join(loaded.files)}, but no 'inputs'")
    if inputs.ndim == 2 and np.issubdtype(inputs.dtype, np.integer):
        inputs = inputs[:, None, None].astype(np.float32)
    if inputs.ndim not in (3, 4) or not np.issubdtype(inputs.dtype, np.floating) or not np.isfinite(inputs).all():
        raise ConfigurationError(
            f"--calib {path}: inputs must be finite floats, (N, C, L) for signals or (N, C, H, W) for images, or ids, "
            f"integers (N, L), not {inputs.dtype} {inputs.shape}"
        )
    if labels is not None and labels.shape != (len(inputs),):
        raise ConfigurationError(f"--calib {path}: {len(inputs)} inputs, but labels of shape {labels.shape}")
    return inputs.astype(np.float32), None if labels is None else labels.astype(np.int64)


def as_images(model: nn.Module, inputs: NDArray[np.float32]) -> nn.Module:
    """The model itself where it takes inputs (N, C, H, W), else, for signals or ids, as one that does."""
    if inputs.ndim != 4 or _output_shape(model, inputs[:1]) is not None:
        return model
    ids = inputs.shape[1:3] == (1, 1) and _output_shape(Images(model), inputs[:1]) is None
    return taking_ids(model) if ids else Images(model)


def answered_by(images: nn.Module, split: Split) -> Split:
    """The split with what a module for inputs (N, C, H, W) says in place of labels."""
    inputs = torch.from_numpy(np.ascontiguousarray(split.inputs))
    return Split(split.inputs, logits_of(images, inputs, torch.device("cpu")).argmax(1).numpy())


def _require_accepts(model: nn.Module, inputs: NDArray[np.float32], classes: int | None) -> int:
    """How many classes the model tells apart."""
    shape = _output_shape(as_images(model, inputs), inputs)
    if shape is None:
        raise ConfigurationError(
            f"{type(model).__name__} does not take inputs of shape (N, {', '.join(map(str, inputs.shape[1:]))})"
        )
    if len(shape) != 2 or (classes is not None and shape[1] != classes):
        wanted = f"(N, {classes})" if classes is not None else "(N, classes)"
        raise ConfigurationError(f"{type(model).__name__} gives outputs of shape {shape}, but {wanted} is needed")
    return shape[1]


def _output_shape(model: nn.Module, inputs: NDArray[np.float32]) -> tuple[int, ...] | None:
    try:
        with torch.no_grad():
            outputs = model.eval()(torch.from_numpy(inputs))
    except Exception:  # noqa: BLE001 - a user's forward may raise anything where the rank is not its own
        return None
    return tuple(outputs.shape) if isinstance(outputs, Tensor) else None
