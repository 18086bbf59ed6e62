"""What every rule of the audit looks at: a file's graph, its typed operators, and what was claimed."""

from __future__ import annotations

import json
from dataclasses import dataclass

from edgekd.convert.graph import METADATA_NAME, Graph, GraphTensor
from edgekd.convert.typed import TypedNode
from edgekd.records import Scheme

UNREADABLE = "unreadable metadata"
_STATIC = {"wi8_ai8", "wi8_ai8_mixed", "wi8_ai8_symmetric", "wi8_ai16"}


@dataclass(frozen=True)
class Case:
    """One file and its claim. `per_channel`: a weight scale for each output channel is claimed."""

    graph: Graph
    nodes: tuple[TypedNode, ...]
    claimed: Scheme
    per_channel: bool

    @property
    def computing(self) -> list[TypedNode]:
        """Operators that compute on numbers of the network."""
        return [entry for entry in self.nodes if not entry.is_quantize and entry.numeric != "index"]

    @property
    def claims_integers(self) -> bool:
        """Whether the claim is of stored integer grids, from end to end but for what `wi8_ai8_mixed` keeps in float."""
        return self.claimed in _STATIC


def stored_bytes(tensor: GraphTensor) -> int:
    """Bytes of a tensor in the file; 0 where it is none of the file's constants."""
    return int(tensor.data.nbytes) if tensor.data is not None else 0


def own_claims(graph: Graph) -> dict[str, str]:
    """What an edgekd file says of itself in its metadata; nothing for other files."""
    try:
        said = json.loads(graph.metadata.get(METADATA_NAME, "{}"))
    except ValueError:
        return {"scheme": UNREADABLE}
    return {str(key): str(value) for key, value in said.items()} if isinstance(said, dict) else {}
