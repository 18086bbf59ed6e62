"""What XNNPACK, LiteRT's delegate for CPUs, leaves of a file to TFLite's own kernels."""

from __future__ import annotations

from typing import Any

from edgekd.convert.graph import Graph, GraphNode
from edgekd.convert.typed import TypedNode

_DELEGATE = "DELEGATE"


def refused_by_xnnpack(graph: Graph, nodes: tuple[TypedNode, ...], answer: dict[str, Any]) -> list[tuple[str, str]]:
    """The operators that the delegate did not take, each with why where that can be told.

    Args:
        graph: the file's.
        nodes: its operators.
        answer: `acceleration_probe.ask_litert`.
    """
    taken = _taken(answer["nodes"], len(graph.nodes))
    readers = graph.readers()
    position = {id(node): index for index, node in enumerate(graph.nodes)}
    found = []
    for entry in nodes:
        node = entry.node
        # What only stores a state gives no tensor by which one could tell.
        silent = all(not reader.outputs for name in node.outputs for reader in readers.get(name, []))
        if entry.numeric == "index" or position[id(node)] in taken:
            continue
        if not node.outputs or (silent and not set(node.outputs) & set(graph.outputs)):
            continue
        found.append((node.name, f"{node.op} is left to TFLite's own kernels: {_reason(graph, entry)}"))
    return found


def _taken(nodes: list[dict[str, Any]], own: int) -> set[int]:
    """Positions of the file's nodes that lie between the inputs and the outputs of a delegate's node."""
    producers = {tensor: index for index in range(own) for tensor in nodes[index]["outputs"]}
    taken: set[int] = set()
    for delegate in nodes[own:]:
        if delegate["op"] != _DELEGATE:
            continue
        given, open_ends = set(delegate["inputs"]), list(delegate["outputs"])
        while open_ends:
            index = producers.get(open_ends.pop())
            if index is None or index in taken:
                continue
            taken.add(index)
            open_ends += [tensor for tensor in nodes[index]["inputs"] if tensor not in given]
    return taken


def _reason(graph: Graph, entry: TypedNode) -> str:
    node = entry.node
    if node.op.startswith("CUSTOM"):
        return "XNNPACK knows no custom operators"
    types = [graph.tensors[name].dtype for name in (*node.inputs, *node.outputs) if name in graph.tensors]
    if "int16" in types:
        return "XNNPACK has no int16 activations"
    if _is_dynamic(graph, node):
        return "a tensor's shape is only known while running"
    return f"XNNPACK does not take it with {' and '.join(dict.fromkeys(types))}"


def _is_dynamic(graph: Graph, node: GraphNode) -> bool:
    return any(-1 in graph.tensors[name].shape for name in (*node.inputs, *node.outputs) if name in graph.tensors)
