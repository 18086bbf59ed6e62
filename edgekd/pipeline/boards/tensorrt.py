"""What TensorRT is given of a run or of a model file: fp16 ONNX unless symmetric int8 is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekd.convert.extras import fit_module
from edgekd.convert.graph import METADATA_NAME
from edgekd.convert.students import artifact
from edgekd.core.spread import evenly
from edgekd.errors import ConfigurationError
from edgekd.pipeline.files.audit import audit
from edgekd.records import Accuracy, Artifact, Report, Scheme
from edgekd.store import RunDirectory

HALF_NAME = "student_fp16.onnx"


def scheme_of(model: Path, given: Scheme | None) -> Scheme:
    """The scheme of an ONNX file: what is said of it, else what its report, metadata, name or operators say.

    Raises:
        ConfigurationError: it cannot be read.
        MissingExtraError: `onnx` is not installed, and nothing is said.
    """
    return given or audit(model, None).scheme


def engine_artifact(run: RunDirectory, report: Report, scheme: Scheme) -> Artifact:
    """The run's ONNX file of a scheme for TensorRT; the fp16 one is written from the fp32 one where it is missing.

    Raises:
        ConfigurationError: the run has none, and it cannot be made without training data.
        BuildError: what was made is not fp16.
    """
    onnx = {one.scheme: one for one in report.artifacts if one.format == "onnx"}
    if scheme in onnx:
        return onnx[scheme]
    if scheme == "fp16" and "fp32" in onnx:
        single = run.path / onnx["fp32"].path
        with run.writing(run.path / HALF_NAME) as partial:
            partial.write_bytes(half_precision(single.read_bytes()))
        return artifact(run.path / HALF_NAME, "onnx", "fp16", onnx["fp32"].sha256, HALF_NAME)
    raise ConfigurationError(
        f"{run.path} has no ONNX file of scheme {scheme}: it has {', '.join(sorted(onnx)) or 'none'}. "
        "`edgekd quantize --scheme wi8_ai8_symmetric` writes int8 for TensorRT, and `edgekd measure FILE --runtime "
        "tensorrt` takes it"
    )


def half_precision(content: bytes) -> bytes:
    """A float32 ONNX model as float16: weights and arithmetic; input and output stay float32, cast at the ends.

    Raises:
        ConfigurationError: it is not all of float32.
    """
    onnx = fit_module("onnx")
    helper, to_array, from_array = onnx.helper, onnx.numpy_helper.to_array, onnx.numpy_helper.from_array
    model: Any = onnx.load_from_string(content)
    graph, half, single = model.graph, onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    if any(end.type.tensor_type.elem_type != single for end in (*graph.input, *graph.output)):
        raise ConfigurationError("only a model with float32 input and output can be made float16")
    for tensor in graph.initializer:
        if tensor.data_type == single:
            tensor.CopyFrom(from_array(to_array(tensor).astype(np.float16), tensor.name))
    renamed = {end.name: f"{end.name}/half" for end in (*graph.input, *graph.output)}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast"):
            raise ConfigurationError(f"only a plain float32 model can be made float16: it has a {node.op_type}")
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    begin = [
        helper.make_node("Cast", [end.name], [renamed[end.name]], renamed[end.name], to=half) for end in graph.input
    ]
    finish = [
        helper.make_node("Cast", [renamed[end.name]], [end.name], f"{end.name}/single", to=single)
        for end in graph.output
    ]
    nodes = [*begin, *graph.node, *finish]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    for entry in [entry for entry in model.metadata_props if entry.key == METADATA_NAME]:
        model.metadata_props.remove(entry)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def accuracy_deployed(host: Accuracy, right: tuple[bool, ...] | None) -> Accuracy:
    """The accuracy that the deployed file is judged on, where it is not the int8 student of the run.

    `right` are this machine's answers with that very file over the shipped test inputs, evenly spaced over the split;
    None, where it has no onnxruntime, leaves nothing to judge.
    """
    if not right:
        return host.model_copy(update={"student_int8": None, "student_int8_correct": ()})
    rows = evenly(host.inputs, len(right))
    teacher = tuple(host.teacher_correct[row] for row in rows) if len(host.teacher_correct) == host.inputs else ()
    return host.model_copy(
        update={
            "student_int8": sum(right) / len(right),
            "student_int8_correct": right,
            "inputs": len(right),
            "teacher_correct": teacher,
            "teacher": sum(teacher) / len(teacher) if teacher else host.teacher,
        }
    )
