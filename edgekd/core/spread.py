"""Picking a part of a sequence so that it stands for the whole."""

from __future__ import annotations

import numpy as np


def evenly(count: int, most: int) -> list[int]:
    """At most `most` indices, evenly spaced over `range(count)`, in order and without repeats."""
    return [int(index) for index in np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))]
