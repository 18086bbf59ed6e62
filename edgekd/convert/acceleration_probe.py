"""The process in which a runtime is asked what it makes of a file: `python -m … RUNTIME FILE` prints one line of JSON.

LiteRT lists the nodes that its delegate replaced with the tensors that go into and come out of each replacement.
onnxruntime writes out the graph that its optimizer leaves.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

_SILENT = 4


def ask_litert(path: str) -> dict[str, Any]:
    """The file's nodes, then the delegate's, by the numbers of their tensors."""
    from ai_edge_litert import __version__
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=path, num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        return {"version": __version__, "refused": str(error)}
    nodes = [
        {
            "op": node["op_name"],
            "inputs": [int(i) for i in node["inputs"]],
            "outputs": [int(i) for i in node["outputs"]],
        }
        for node in interpreter._get_ops_details()
    ]
    return {"version": __version__, "nodes": nodes}


def ask_onnxruntime(path: str) -> dict[str, Any]:
    """The nodes left after the fusions of all CPUs; the layout that suits this one's comes after those."""
    import onnx

    from edgekd.convert.extras import fit_module
    from edgekd.convert.inference import onnxruntime_errors

    onnxruntime = fit_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    with tempfile.TemporaryDirectory(prefix="edgekd-audit-") as scratch:
        target = Path(scratch, "optimized.onnx")
        options.optimized_model_filepath = str(target)
        try:
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except onnxruntime_errors(onnxruntime) as error:
            return {"version": onnxruntime.__version__, "refused": str(error)}
        graph = onnx.load(target).graph
    nodes = [
        {"name": node.name, "op": node.op_type, "inputs": list(node.input), "outputs": list(node.output)}
        for node in graph.node
    ]
    return {"version": onnxruntime.__version__, "nodes": nodes}


if __name__ == "__main__":
    asked = {"tflite": ask_litert, "onnxruntime": ask_onnxruntime}[sys.argv[1]]
    sys.stdout.write("\n" + json.dumps(asked(sys.argv[2])) + "\n")
