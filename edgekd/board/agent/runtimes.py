"""The two runtimes behind one face: load, say what the inputs are, feed, invoke, read the outputs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .inputs import InputSpec
from .wire import AgentError

DEFAULT_PROVIDER = "CPUExecutionProvider"
SCALE_KEYS = ("edgekd.input_scale", "edgekd.input_zero_point")
ONNX_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class Model(Protocol):
    """A loaded model. Between `feed` and `invoke` lies the line between what is not timed and what is."""

    specs: list[InputSpec]
    provider: str
    prefers_nhwc: bool
    settings: dict[str, Any]
    invoke: Callable[[], Any]

    def feed(self, arrays: list[np.ndarray]) -> None:
        """Hand over the inputs of the next inference."""

    def outputs(self) -> list[np.ndarray]:
        """The outputs of the last inference."""


def import_runtime(runtime: str) -> Any:
    """Import the module that runs models of that kind."""
    names = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter") if runtime == "tflite" else ("onnxruntime",)
    problems = []
    for name in names:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            problems.append(f"{name}: {error}")
            continue
        if hasattr(module, "disable_telemetry_events"):
            # What onnxruntime reports about its use is nobody's business, and its thread would be measured too.
            module.disable_telemetry_events()
        return module
    raise AgentError("runtime", "; ".join(problems))


@dataclass(frozen=True)
class LoadOptions:
    """How to load a model: threads; and, of onnxruntime alone, spinning, exactness, a profile, and what has to run it.

    Spinning saves microseconds and burns power. `exact` makes x86 without VNNI add int8 products as ARM does.
    """

    threads: int
    spinning: bool = True
    exact: bool = False
    profile_prefix: str | None = None
    provider: str | None = None


def load(module: Any, runtime: str, path: str, options: LoadOptions) -> Model:
    """Load a model file."""
    return TfliteModel(module, path, options.threads) if runtime == "tflite" else OnnxModel(module, path, options)


class TfliteModel:
    """A model in LiteRT (or tflite-runtime)."""

    prefers_nhwc = True

    def __init__(self, module: Any, path: str, threads: int) -> None:
        try:
            self._interpreter = module.Interpreter(model_path=path, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise AgentError("model", f"the runtime does not load the model: {error}") from error
        self.specs = [_tflite_spec(detail) for detail in self._interpreter.get_input_details()]
        self._indices = [detail["index"] for detail in self._interpreter.get_input_details()]
        self._output_indices = [detail["index"] for detail in self._interpreter.get_output_details()]
        self.provider, delegated = self._found_provider()
        self.settings = {"num_threads": threads, "delegated_partitions": delegated}
        self.invoke = self._interpreter.invoke

    def _found_provider(self) -> tuple[str, int]:
        """What executes the graph: XNNPACK where the runtime handed partitions to it, which it does by default."""
        operators = [detail["op_name"] for detail in self._interpreter._get_ops_details()]
        partitions = sum(1 for name in operators if "DELEGATE" in name.upper())
        return ("XNNPACK" if partitions else "builtin kernels"), partitions

    def feed(self, arrays: list[np.ndarray]) -> None:
        """Copy the inputs into the interpreter's tensors."""
        for position, index in enumerate(self._indices):
            self._interpreter.set_tensor(index, arrays[position])

    def outputs(self) -> list[np.ndarray]:
        """Copies of the output tensors."""
        return [self._interpreter.get_tensor(index) for index in self._output_indices]


def _tflite_spec(detail: dict[str, Any]) -> InputSpec:
    scale, zero_point = detail["quantization"]
    return InputSpec(
        name=str(detail["name"]),
        shape=tuple(int(size) for size in detail["shape"]),
        dtype=np.dtype(detail["dtype"]),
        scale=float(scale) or None,
        zero_point=int(zero_point),
    )


class OnnxModel:
    """A model in onnxruntime. Inputs are bound before the timed call, as a C++ application does."""

    prefers_nhwc = False

    def __init__(self, module: Any, path: str, wanted: LoadOptions) -> None:
        options = module.SessionOptions()
        options.intra_op_num_threads = wanted.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not wanted.spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if wanted.exact:
            options.add_session_config_entry("session.x64quantprecision", "1")
        if wanted.profile_prefix is not None:
            options.enable_profiling = True
            options.profile_file_prefix = wanted.profile_prefix
        chosen = wanted.provider or DEFAULT_PROVIDER
        _require_provider(chosen, module.get_available_providers())
        try:
            self._session = module.InferenceSession(
                path, options, providers=list(dict.fromkeys((chosen, DEFAULT_PROVIDER)))
            )
        except _onnxruntime_errors(module) as error:
            raise AgentError("model", f"the runtime does not load the model: {error}") from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.specs = [_onnx_spec(node, metadata) for node in self._session.get_inputs()]
        self.provider = self._session.get_providers()[0]
        _require_provider(chosen, [self.provider])
        self.settings = {
            "intra_op_num_threads": wanted.threads,
            "inter_op_num_threads": 1,
            "spinning": "runtime default (on)" if wanted.spinning else "off",
        }
        self.finish_profile = self._session.end_profiling
        self._binding = self._session.io_binding()
        for node in self._session.get_outputs():
            self._binding.bind_output(node.name)
        session, binding = self._session, self._binding
        self.invoke = lambda: session.run_with_iobinding(binding)
        self._alive: list[np.ndarray] = []

    def feed(self, arrays: list[np.ndarray]) -> None:
        """Bind the inputs where they lie."""
        self._alive = arrays  # The binding keeps only an address.
        for position, spec in enumerate(self.specs):
            self._binding.bind_cpu_input(spec.name, arrays[position])

    def outputs(self) -> list[np.ndarray]:
        """The outputs of the last inference."""
        return list(self._binding.copy_outputs_to_cpu())


def _require_provider(wanted: str, there: list[str]) -> None:
    if wanted not in there:
        raise AgentError(
            "provider",
            f"{wanted} was asked for, but this onnxruntime has {', '.join(there)}, and {DEFAULT_PROVIDER} would run "
            "the graph. On a Jetson only NVIDIA's own wheel of onnxruntime-gpu has CUDA and TensorRT: install that",
        )


def _onnxruntime_errors(module: Any) -> tuple[type[Exception], ...]:
    """All exceptions of onnxruntime: they share no base of their own."""
    state = module.capi.onnxruntime_pybind11_state
    found = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*found, RuntimeError, ValueError)


def _onnx_spec(node: Any, metadata: dict[str, str]) -> InputSpec:
    if node.type not in ONNX_DTYPES:
        raise AgentError("inputs", f"the model's input '{node.name}' is {node.type}, which cannot be fed")
    shape = []
    for axis, size in enumerate(node.shape):
        if not isinstance(size, int) and axis > 0:
            raise AgentError(
                "inputs", f"the model's input '{node.name}' has no fixed size on axis {axis} ({node.shape})"
            )
        shape.append(size if isinstance(size, int) else 1)
    scale, zero_point = (metadata.get(key) for key in SCALE_KEYS)
    return InputSpec(
        name=node.name,
        shape=tuple(shape),
        dtype=np.dtype(ONNX_DTYPES[node.type]),
        scale=float(scale) if scale else None,
        zero_point=int(zero_point or 0),
    )
