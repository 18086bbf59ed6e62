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
# Operators on shapes and indices: a provider for a GPU leaves them to the CPU, where they belong.
ON_SHAPES = {"Shape", "Size", "Gather", "Unsqueeze", "Squeeze", "Slice", "Cast", "Range", "ConstantOfShape"}


def profile_pass(job: dict[str, Any], model: Model, wire: Wire) -> None:
    """Run with the runtime's profiler on and tell each node's mean time."""
    operators = operators_of(_profile(job, model, WARMUP_RUNS + RUNS))
    wire.send("operators", operators=operators[:LIMIT], runs=RUNS)


def provider_pass(job: dict[str, Any], model: Model) -> None:
    """Let one inference tell what ran each node, and refuse where it was not what was asked for."""
    wanted = job["provider"]
    others: dict[str, set[str]] = {}
    for event in json.loads(_profile(job, model, 1)):
        ran = event.get("args", {})
        if event.get("cat") == "Node" and ran.get("provider") and ran["provider"] != wanted:
            others.setdefault(str(ran["provider"]), set()).add(str(ran.get("op_name")))
    others = {provider: kinds for provider, kinds in others.items() if kinds - ON_SHAPES}
    if others:
        who = "; ".join(f"{provider} ran {', '.join(sorted(kinds)[:8])}" for provider, kinds in others.items())
        raise AgentError("provider", f"{wanted} was asked for and is there, but it did not run the whole graph: {who}")


def _profile(job: dict[str, Any], model: Model, runs: int) -> str:
    """What the runtime's profiler wrote about that many inferences."""
    finish = getattr(model, "finish_profile", None)
    if finish is None:
        raise AgentError("profile", f"{job['runtime']} has no profiler that Python reaches")
    sets, _ = feed_sets(job, model, most=8)
    for position in range(runs):
        model.feed(sets[position % len(sets)])
        model.invoke()
    path = Path(finish())
    try:
        text = path.read_text()
        json.loads(text)
    except (OSError, ValueError) as error:
        raise AgentError("profile", f"the runtime's profile cannot be read: {error}") from error
    finally:
        path.unlink(missing_ok=True)
        path.parent.rmdir()
    return text


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
