"""A user's own torch module and the inputs to calibrate it on, from what the command line names."""

from __future__ import annotations

import copy
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from edgekd.core.user_code import where
from edgekd.errors import BuildError, ConfigurationError
from edgekd.nn.evaluation import evaluating
from edgekd.nn.weights import load_weights
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
        BuildError: a parameter is NaN or infinite; it is named.
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
        raise ConfigurationError(f"{reference} raised:\n{where(error)}") from error
    if not isinstance(model, nn.Module):
        raise ConfigurationError(f"{reference} returned {type(model).__name__}, not a torch module")
    if weights is not None:
        load_weights(model, weights, "--weights", "the model")
    _require_finite(model, reference)
    return model.eval()


def _run(path: Path) -> dict[str, Any]:
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        return runpy.run_path(str(path), run_name="edgekd_model")
    except Exception as error:  # as above: a user's code
        raise ConfigurationError(f"{path} raised while it was read:\n{where(error)}") from error
    finally:
        sys.path.remove(folder)


def _require_finite(model: nn.Module, reference: str) -> None:
    """Refuse parameters and running statistics that are no numbers; masks and the like may be infinite."""
    running = ((name, buffer) for name, buffer in model.named_buffers() if "running_" in name)
    for name, values in (*model.named_parameters(), *running):
        if isinstance(values, (UninitializedParameter, UninitializedBuffer)) or bool(torch.isfinite(values).all()):
            continue
        wrong = int((~torch.isfinite(values)).sum())
        raise BuildError(
            f"{name} of {reference} holds {wrong} of {values.numel()} values that are NaN or infinite: its training "
            "diverged, or the weights are damaged"
        )


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
    first = inputs[:1]
    if inputs.ndim != 4 or not isinstance(_answer(model, first), Exception):
        return model
    numbers = inputs.shape[1:3] == (1, 1) and bool(np.all(first == np.rint(first)))
    ids = numbers and isinstance(_answer(Images(model), first), Exception)
    return taking_ids(model) if ids else Images(model)


def answered_by(images: nn.Module, split: Split) -> Split:
    """The split with what a module for inputs (N, C, H, W) says in place of labels."""
    inputs = torch.from_numpy(np.ascontiguousarray(split.inputs))
    return Split(split.inputs, logits_of(images, inputs, torch.device("cpu")).argmax(1).numpy())


def _require_accepts(model: nn.Module, inputs: NDArray[np.float32], classes: int | None) -> int:
    """How many classes the model tells apart."""
    name, wanted = type(model).__name__, "(N, classes)" if classes is None else f"(N, {classes})"
    outputs = _answer(as_images(model, inputs), inputs)
    if isinstance(outputs, Exception):
        shape = ", ".join(map(str, inputs.shape[1:]))
        raise ConfigurationError(f"{name} refuses the one input it was given, (N, {shape}):\n{where(outputs)}")
    if not isinstance(outputs, Tensor):
        raise ConfigurationError(f"{name} gives {_described(outputs)}; edgekd takes one tensor {wanted}: return that")
    if outputs.dim() != 2 or (classes is not None and outputs.shape[1] != classes):
        raise ConfigurationError(f"{name} gives outputs of shape {tuple(outputs.shape)}, but {wanted} is needed")
    return outputs.shape[1]


def _described(outputs: Any) -> str:
    """What is no tensor, in words."""
    kind = type(outputs).__name__
    if isinstance(outputs, dict):
        return f"{len(outputs)} output{'s'[: len(outputs) != 1]} in a {kind} ({', '.join(map(str, outputs))})"
    if isinstance(outputs, (tuple, list)):
        return f"{len(outputs)} output{'s'[: len(outputs) != 1]} in a {kind}"
    return f"a {kind}"


def _answer(model: nn.Module, inputs: NDArray[np.float32]) -> Any:
    """What a module says to inputs, or the exception that it raised instead."""
    try:
        with torch.no_grad(), evaluating(model):
            return model(torch.from_numpy(inputs))
    except Exception as error:  # noqa: BLE001 - a user's forward may raise anything where the rank is not its own
        return error
