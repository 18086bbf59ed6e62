"""Runs model files on this machine, for parity and accuracy; never for latency."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekd.convert.extras import fit_module
from edgekd.convert.model_file import format_of
from edgekd.errors import BuildError
from edgekd.nn.quantized.network import Array

Kernels = Literal["deployed", "exact", "reference"]
"""Which arithmetic runs: as on a board; onnxruntime without x86's saturating int8 products; TFLite's reference code."""

_BATCH_LOG_ERROR = 3


def run_model(path: Path, inputs: Array, kernels: Kernels = "deployed") -> Array:
    """Outputs of a model file with one input and one output, in float, one inference per input on one thread.

    Args:
        path: a .tflite or .onnx file whose batch is 1.
        inputs: (N, C, H, W) float32, or signals (N, C, L) for files of height 1; they are transposed and quantized
            here where the file wants that.
        kernels: `exact` exists for ONNX and `reference` for TFLite.

    Returns:
        (N, ...) float32: the file's output for each input, dequantized where it is an integer.

    Raises:
        BuildError: the runtime refuses the file, or the inputs do not fit it.
    """
    if inputs.ndim == 3:
        inputs = inputs[:, :, None]
    runner = _tflite_runner(path, kernels) if format_of(path) == "tflite" else _onnx_runner(path, kernels)
    return np.stack([runner(inputs[index : index + 1]) for index in range(len(inputs))])


def quantize_input(values: Array, scale: float, zero_point: int, dtype: Any) -> Array:
    """Float values on an integer input's grid, as torch's fake quantization rounds them."""
    limits = np.iinfo(dtype)
    steps = np.rint(values * np.float32(1.0 / np.float32(scale))) + zero_point
    quantized: Array = np.clip(steps, limits.min, limits.max).astype(dtype)
    return quantized


def _tflite_runner(path: Path, kernels: Kernels) -> Callable[[Array], Array]:
    module = fit_module("ai_edge_litert.interpreter")
    resolver = module.OpResolverType.BUILTIN_REF if kernels == "reference" else module.OpResolverType.AUTO
    try:
        interpreter = module.Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise BuildError(f"{path}: LiteRT refuses it: {error}") from error
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(values: Array) -> Array:
        interpreter.set_tensor(source["index"], _for_input(path, values, source))
        interpreter.invoke()
        output = interpreter.get_tensor(result["index"])[0]
        scale, zero_point = result["quantization"]
        if not scale:
            return np.asarray(output)
        return np.asarray((output.astype(np.float32) - zero_point) * np.float32(scale))

    return run


def _for_input(path: Path, values: Array, details: dict[str, Any]) -> Array:
    """Values (1, C, H, W) in the layout and on the grid of a TFLite input."""
    wanted = tuple(int(size) for size in details["shape"])
    if values.ndim == 4 and (values.shape[0], *values.shape[2:], values.shape[1]) == wanted:
        values = values.transpose(0, 2, 3, 1)
    if values.shape != wanted:
        raise BuildError(f"{path}: its input has shape {wanted}, but was given {values.shape}")
    scale, zero_point = details["quantization"]
    return quantize_input(values, scale, zero_point, details["dtype"]) if scale else values.astype(details["dtype"])


def onnxruntime_errors(runtime: Any) -> tuple[type[Exception], ...]:
    """The exceptions of onnxruntime, which share no base of their own, and what its binding raises."""
    states = vars(runtime.capi.onnxruntime_pybind11_state).values()
    own = [state for state in states if isinstance(state, type) and issubclass(state, Exception)]
    return (*own, RuntimeError, ValueError)


_ONNX_TYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}
"""What inputs are made of: numbers, or ids that an embedding reads."""


def _onnx_runner(path: Path, kernels: Kernels) -> Callable[[Array], Array]:
    runtime = fit_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _BATCH_LOG_ERROR
    if kernels == "exact":
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except onnxruntime_errors(runtime) as error:
        raise BuildError(f"{path}: onnxruntime refuses it: {error}") from error
    (source,) = session.get_inputs()
    wanted = tuple(source.shape)

    def run(values: Array) -> Array:
        if values.shape != wanted:
            raise BuildError(f"{path}: its input has shape {wanted}, but was given {values.shape}")
        output: Array = session.run(None, {source.name: values.astype(_ONNX_TYPES[source.type])})[0][0]
        return output

    return run
