"""Converts one student to its files: lowered here, written and tried out in processes of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.convert.audit import require_honest
from edgekd.convert.isolated import write_isolated
from edgekd.errors import BuildError
from edgekd.nn.quantized.network import Network
from edgekd.records import Artifact, Format, Scheme

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.nn.quantized.model import QuantizedModel

FileKey = tuple[Format, Scheme]
DEFAULT_TIMEOUT_S = 120.0
_SMALLER_ABOVE = 100_000
"""Parameters above which an int8 file must be smaller than its fp32 twin; below, scales may outweigh the gain."""


def convert_student(
    float_model: nn.Module,
    quantized_model: QuantizedModel,
    example: Tensor,
    out_dir: Path,
    names: Mapping[FileKey, str],
    parent: str | None = None,
    parallel: int = 2,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    opset: int | None = None,
) -> list[Artifact]:
    """Write a student's files, audited, in the order of `names`.

    Args:
        float_model: the float student, for the fp32 files, and fp16 ones beside those of another scheme.
        quantized_model: its fake-quantized form, trained or calibrated, for the int8 files.
        example: one input (1, C, H, W) float32; its shape fixes the files' input.
        out_dir: the directory the files go to; it exists.
        names: a file name for each (format, scheme) that is wanted.
        parent: sha256 of the torch artifact the files are made from.
        parallel: how many files are written at once.
        timeout_s: seconds that one file may take.
        opset: of the .onnx files; None is the oldest that carries their scheme.

    Raises:
        BuildError: an operator without a form in a format, a converter that failed, crashed or hung (with the end
            of its log), or a file that is not what its scheme says.
    """
    networks = _networks(float_model, quantized_model, example, names)
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        jobs = [
            pool.submit(write_isolated, networks[scheme], file_format, out_dir / name, timeout_s, opset)
            for (file_format, scheme), name in names.items()
        ]
        for job in jobs:
            job.result()
    artifacts = [
        artifact(out_dir / name, file_format, scheme, parent, name) for (file_format, scheme), name in names.items()
    ]
    _require_smaller(artifacts, networks)
    return artifacts


def _networks(
    float_model: nn.Module, quantized_model: QuantizedModel, example: Tensor, names: Mapping[FileKey, str]
) -> dict[str, Network]:
    from edgekd.nn.quantized.model import quantize_model

    schemes = {scheme for _, scheme in names}
    networks: dict[str, Network] = {}
    if quantized_model.scheme in schemes:
        networks[quantized_model.scheme] = quantized_model.network()
    for scheme in {"fp32", "fp16"} & (schemes - set(networks)):
        networks[scheme] = quantize_model(float_model, example, scheme).network()  # type: ignore[arg-type]
    missing = schemes - set(networks)
    if missing:
        raise BuildError(f"no model of scheme {', '.join(sorted(missing))} was given: it is {quantized_model.scheme}")
    return networks


def artifact(path: Path, file_format: Format, scheme: Scheme, parent: str | None, name: str) -> Artifact:
    """The record of a file, audited.

    Raises:
        BuildError: the file is not what its scheme says.
    """
    audit = require_honest(path, scheme)
    content = path.read_bytes()
    return Artifact(
        path=name,
        format=file_format,
        scheme=scheme,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        parent=parent,
        audit=audit,
    )


def _require_smaller(artifacts: list[Artifact], networks: dict[str, Network]) -> None:
    twins = {entry.format: entry for entry in artifacts if entry.scheme == "fp32"}
    for entry in artifacts:
        twin = twins.get(entry.format)
        if entry.scheme == "fp32" or twin is None or networks[entry.scheme].parameters <= _SMALLER_ABOVE:
            continue
        if entry.size_bytes >= twin.size_bytes:
            raise BuildError(f"{entry.path} has {entry.size_bytes} bytes, no less than {twin.path}'s {twin.size_bytes}")
