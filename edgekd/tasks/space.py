"""The contract of a student space of a user's own: what may be chosen, and what builds a student from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Space:
    """Students that a user's own code builds, for `edgekd fit --space FILE.py:NAME`.

    Args:
        dimensions: the allowed whole numbers of each choice, cheapest first.
        build: called as `build(input_shape=(C, H, W), outputs=K, **choices)`; returns a torch module from (N, C, H, W)
            float32 to logits (N, K), with operators that edgekd can quantize. Signals have height 1.
        input_shape: from `(choices, native)` to the (C, H, W) that the student takes, where that is not the task's own:
            the last W samples of a signal, or an image resized to H by W.
    """

    dimensions: Mapping[str, Sequence[int]]
    build: Callable[..., Any]
    input_shape: Callable[[Mapping[str, int], Shape], Shape] | None = None
