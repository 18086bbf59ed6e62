"""TensorRT on a board: its own `trtexec` found, and the engine that it builds there from an ONNX file.

Nothing of TensorRT is sent: on a Jetson it comes with JetPack and fits that release's driver alone.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.board.agent.inputs import InputSpec, for_model, layout_of, stored_labels, stored_rows
from edgekd.board.agent.wire import AgentError
from edgekd.board.connection.session import Session
from edgekd.board.measuring.agent_lines import AgentLine, EngineLine, InputDescription
from edgekd.core.board_output import printable
from edgekd.errors import BoardError, ConfigurationError
from edgekd.records import Scheme
from edgekd.records.measurement import Engine

if TYPE_CHECKING:
    from edgekd.board.measuring.agent_client import Agent

BUILD_TIMEOUT_S = 3600.0
ACCURACY_SECONDS = 120.0
COMPARED_INPUTS = 64
"""trtexec takes one input a process, and each loads CUDA anew: more would cost minutes."""
PLACES = (
    "trtexec",
    "/usr/src/tensorrt/bin/trtexec",
    "/usr/local/tensorrt/bin/trtexec",
    "/opt/tensorrt/bin/trtexec",
)
_FIND = (
    'for name in "$@"; do found=$(command -v -- "$name" 2>/dev/null) || continue; echo "$found"; '
    'sha256sum <"$found"; "$found" --help 2>&1 | head -c 200000; exit 0; done; exit 0'
)
_RELEASE = 'head -c 300 /etc/nv_tegra_release 2>/dev/null; cat "$1/firmware/devicetree/base/model" 2>/dev/null; exit 0'
_FLAGS: Mapping[Scheme, tuple[str, ...]] = {
    "fp32": (),
    "fp16": ("--fp16",),
    "wi8_ai8_symmetric": ("--int8", "--fp16"),
}
_INPUT_NAME = re.compile(r"[A-Za-z0-9_.]+")


@dataclass(frozen=True, slots=True)
class Trtexec:
    """The board's trtexec: where it is, its hash, its TensorRT's version (`10.3.0 b30`) and the options it knows."""

    path: str
    sha256: str
    version: str
    options: frozenset[str]

    @property
    def skip_inference(self) -> str:
        """The option that builds and does not run: its name changed with TensorRT 8.6."""
        return "--skipInference" if "--skipInference" in self.options else "--buildOnly"

    def flags(self, scheme: Scheme) -> tuple[str, ...]:
        """What allows TensorRT the types of a scheme; releases that read them from the file know no such options.

        Raises:
            ConfigurationError: TensorRT has no such scheme.
        """
        if scheme not in _FLAGS:
            raise ConfigurationError(
                f"TensorRT does not run scheme {scheme} as it is: its int8 has zero points of 0. Use the fp16 or fp32 "
                "ONNX, or quantize for it: `edgekd quantize MODEL --scheme wi8_ai8_symmetric`"
            )
        return tuple(flag for flag in _FLAGS[scheme] if flag in self.options)


@dataclass(frozen=True, slots=True)
class EngineInputs:
    """Inputs as raw files on the board (without numpy there, one a file), and their labels where there are any."""

    name: str
    files: tuple[str, ...]
    labels: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What to build an engine for: the scheme of the ONNX file, and the inputs to feed it."""

    scheme: Scheme
    inputs: EngineInputs | None = None


def find_trtexec(session: Session) -> Trtexec:
    """The board's trtexec.

    Raises:
        BoardError: there is none, or it does not tell what it is.
    """
    path, _, rest = session.shell(_FIND, *PLACES, timeout_s=120.0).stdout.partition("\n")
    if not path.startswith("/"):
        raise BoardError(
            f"{session.name}: no trtexec there (looked in PATH and {PLACES[1]}). --runtime tensorrt uses TensorRT's "
            "own: on a Jetson `sudo apt install nvidia-jetpack` (or libnvinfer-bin alone) brings it; or use "
            "--runtime onnx"
        )
    digest, _, said = rest.partition("\n")
    version = parse_version(said)
    if version is None or not re.fullmatch(r"[0-9a-f]{64}", digest[:64]):
        raise BoardError(
            f"{session.name}: {printable(path, 100)} --help does not tell TensorRT's version: "
            f"'{printable(said.strip()[:300], 300)}'. Does it start there? A library that it needs may be missing"
        )
    return Trtexec(path, digest[:64], version, frozenset(re.findall(r"--[A-Za-z0-9]+", said)))


def parse_version(text: str) -> str | None:
    """The version in trtexec's first line: `[TensorRT v100300] [b30]` is 10.3.0 b30, `[TensorRT v8502]` 8.5.2."""
    found = re.search(r"\[TensorRT v(\d{4,6})\](?: \[b(\d+)\])?", text)
    if found is None:
        return None
    number = int(found.group(1))
    parts = (number // 10_000, number // 100 % 100) if number >= 10_000 else (number // 1000, number // 100 % 10)
    version = ".".join(str(part) for part in (*parts, number % 100))
    return f"{version} b{found.group(2)}" if found.group(2) else version


def device_of(session: Session, sysfs: str) -> str:
    """The board's model and release in one line, as far as it tells: an engine fits these alone."""
    said = session.shell(_RELEASE, sysfs, check=False).stdout.replace("\0", " ")
    return printable(" ".join(said.split()), 300) or "a board that tells no model"


def engine_job(session: Session, trtexec: Trtexec, request: EngineRequest) -> dict[str, Any]:
    """What every pass with trtexec is told besides its model."""
    inputs = request.inputs
    return {
        "trtexec": trtexec.path,
        "version": trtexec.version,
        "engines": f"{session.home}/engines",
        "skip_inference": trtexec.skip_inference,
        "input_name": inputs.name if inputs else None,
        "input_files": list(inputs.files) if inputs else [],
        "labels": list(inputs.labels) if inputs and inputs.labels is not None else None,
        "seconds": ACCURACY_SECONDS,
    }


def build_engine(
    agent: Agent, trtexec: Trtexec, request: EngineRequest, onnx: tuple[str, str], device: str
) -> tuple[str, Engine]:
    """The engine for an ONNX file (path there and sha256): built there once, then used again; its path and record.

    Raises:
        BoardError: trtexec cannot build it.
        ConfigurationError: TensorRT does not run the scheme.
    """
    path, sha256 = onnx
    flags = trtexec.flags(request.scheme)
    named = json.dumps([sha256, trtexec.sha256, trtexec.version, device, flags])
    found: list[EngineLine] = []

    def take(line: AgentLine) -> None:
        if isinstance(line, EngineLine):
            found.append(line)

    agent.do(
        "engine",
        take,
        timeout_s=BUILD_TIMEOUT_S,
        runtime="tensorrt",
        model=path,
        model_sha256=sha256,
        key=hashlib.sha256(named.encode()).hexdigest()[:16],
        flags=list(flags),
        **engine_job(agent.session, trtexec, request),
    )
    if not found:
        raise BoardError(f"{agent.session.name}: the agent told of no engine")
    line = found[-1]
    engine = Engine(
        sha256=line.sha256,
        size_bytes=line.size_bytes,
        onnx_sha256=sha256,
        version=trtexec.version,
        device=device,
        flags=flags,
        build_seconds=line.build_seconds,
        built_now=line.built,
    )
    return line.path, engine


def write_inputs(
    stored: Path, wanted: Sequence[int], spec: InputDescription, folder: Path
) -> tuple[dict[str, Path], tuple[int, ...] | None]:
    """The stored inputs of those rows as raw files that trtexec reads (file name → path), and their labels.

    Raises:
        ConfigurationError: they do not fit the model's input, or its name is one that trtexec cannot be told.
    """
    if not _INPUT_NAME.fullmatch(spec.name):
        raise ConfigurationError(f"trtexec cannot be given an input named '{printable(spec.name, 60)}'")
    files: dict[str, Path] = {}
    try:
        model_input = InputSpec(spec.name, tuple(spec.shape), np.dtype(spec.dtype))
        shape, rows = stored_rows(stored, "inputs")
        read = 0
        layout = layout_of(model_input, tuple(shape[1:]), prefer_nhwc=False)
        for index in sorted(set(range(shape[0])) & set(wanted)):
            row = next(itertools.islice(rows, index - read, None))
            read = index + 1
            name = f"input_{index:05d}.bin"
            files[name] = folder / name
            files[name].write_bytes(for_model(row, model_input, layout).tobytes())
        labels = stored_labels(stored)
    except AgentError as error:
        raise ConfigurationError(str(error)) from error
    return files, None if labels is None else tuple(int(labels[index]) for index in sorted(wanted))
