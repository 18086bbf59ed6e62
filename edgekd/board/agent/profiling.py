"""Time per operator, in a pass of its own, where the runtime offers it: onnxruntime does, LiteRT's Python does not."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from .passes import feed_sets
from .runtimes import Model
from .wire import AgentError, Wire

RUNS = 50
WARMUP_RUNS = 5
LIMIT = 1000
KERNEL = "_kernel_time"


def profile_pass(job: dict[str, Any], model: Model, wire: Wire) -> None:
    """Run with the runtime's profiler on and tell each node's mean time."""
    finish = getattr(model, "finish_profile", None)
    if finish is None:
        raise AgentError("profile", f"{job['runtime']} has no profiler that Python reaches")
    sets, _ = feed_sets(job, model, most=8)
    for position in range(WARMUP_RUNS + RUNS):
        model.feed(sets[position % len(sets)])
        model.invoke()
    path = Path(finish())
    try:
        operators = operators_of(path.read_text())
    except (OSError, ValueError) as error:
        raise AgentError("profile", f"the runtime's profile cannot be read: {error}") from error
    finally:
        path.unlink(missing_ok=True)
        path.parent.rmdir()
    wire.send("operators", operators=operators[:LIMIT], runs=RUNS)


def profile_prefix() -> str:
    """Where the runtime may write its profile."""
    return str(Path(tempfile.mkdtemp(prefix="edgekd-profile-")) / "profile")


def operators_of(text: str) -> list[dict[str, Any]]:
    """Onnxruntime's profile (events of Chrome's trace format, us) as one entry a node, in the order of the graph.

    The warm-up's runs are left out.
    """
    times: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for event in json.loads(text):
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(KERNEL):
            node = name[: -len(KERNEL)]
            times.setdefault(node, []).append(float(event["dur"]))
            kinds[node] = str(event.get("args", {}).get("op_name", ""))
    return [
        {"name": node[:200], "kind": kinds[node][:100], "mean_us": sum(kept) / len(kept), "runs": len(kept)}
        for node, each in times.items()
        if (kept := each[WARMUP_RUNS:])
    ]
