"""What onnxruntime's CPU provider computes in float although the file stores integers or halves."""

from __future__ import annotations

from typing import Any

from edgekd.convert.graph import Graph, GraphNode
from edgekd.convert.typed import TypedNode

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_INSERTED_CAST = "InsertedPrecisionFreeCast_"
"""How onnxruntime names the values between casts of its own, where it has no float16 kernel."""


def unfused_in_onnxruntime(graph: Graph, nodes: tuple[TypedNode, ...], answer: dict[str, Any]) -> list[tuple[str, str]]:
    """The operators that are left in float, or that float16 is cast to float32 for.

    Args:
        graph: the file's.
        nodes: its operators.
        answer: `acceleration_probe.ask_onnxruntime`.
    """
    optimized = answer["nodes"]
    dequantized = {name: node for node in optimized if node["op"] == _DEQUANTIZE for name in node["outputs"]}
    quantized = {name for node in optimized if node["op"] == _QUANTIZE for name in node["inputs"][:1]}
    original = {node.name: node for node in graph.nodes}
    found = []
    for node in optimized:
        name = node["name"] or node["outputs"][0]
        op = original[name].op if name in original else node["op"]
        if node["op"] in (_QUANTIZE, _DEQUANTIZE, "Cast"):
            continue
        # An operator may take one input through a dequantize node, and weights through another.
        fed = [dequantized[source] for source in node["inputs"] if source in dequantized]
        if fed or quantized.intersection(node["outputs"]):
            stored = bool(fed) and all(graph.constant(source["inputs"][0]) for source in fed)
            what = "its weights are dequantized first" if stored else _between(graph, original.get(name))
            found.append((name, f"{op} is computed in float32: {what}"))
        elif any(made.startswith(_INSERTED_CAST) for made in node["outputs"]):
            found.append((name, f"{op} is computed in float32, between casts"))
    return found


def _between(graph: Graph, node: GraphNode | None) -> str:
    producers = graph.producers()
    sources = [producers[name] for name in (node.inputs if node is not None else ()) if name in producers]
    stored = [source.inputs[0] for source in sources if source.op == _DEQUANTIZE]
    types = sorted({graph.tensors[name].dtype for name in stored if not graph.constant(name)})
    kinds = f" of {' and '.join(types)}" if types else ""
    return f"onnxruntime does not fuse it with the (de)quantize nodes{kinds} around it"
