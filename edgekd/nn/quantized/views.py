"""How a tensor of the user's module is stored here: always as an image (N, C, H, W), whatever its own axes are.

TFLite keeps channels last, so tokens (N, T, F) and images (N, H, W, C) lie there as images with their last axis as
channels do. A transpose between the two forms moves nothing, a linear layer over tokens is a 1x1 convolution, and a
mean over tokens a global pool.

- `first`: channels first, as convolutions want it. Signals (N, C, L) are images of height 1.
- `last`: channels last: tokens (N, T, F) are (N, F, 1, T), images (N, H, W, C) are (N, C, H, W).
- `split`, `heads`, `keys`: tokens whose channels are seen as heads: (N, T, h, d), (N, h, T, d) and (N, h, d, T).
"""

from __future__ import annotations

from typing import Literal

View = Literal["first", "last", "split", "heads", "keys"]
Shape = tuple[int, ...]

_TURNS: dict[tuple[View, Shape], View] = {
    ("first", (0, 2, 1)): "last",
    ("last", (0, 2, 1)): "first",
    ("first", (0, 2, 3, 1)): "last",
    ("last", (0, 3, 1, 2)): "first",
    ("split", (0, 2, 1, 3)): "heads",
    ("split", (0, 2, 3, 1)): "keys",
    ("heads", (0, 2, 1, 3)): "split",
    ("heads", (0, 1, 3, 2)): "keys",
    ("keys", (0, 1, 3, 2)): "heads",
    ("keys", (0, 3, 1, 2)): "split",
}


def stored_shape(shape: Shape, view: View) -> Shape:
    """The stored shape of a tensor whose own shape is `shape`, batch 1."""
    if view == "first":
        return (shape[0], shape[1], 1, shape[2]) if len(shape) == 3 else shape
    if view == "last":
        return (shape[0], shape[2], 1, shape[1]) if len(shape) == 3 else (shape[0], shape[3], shape[1], shape[2])
    heads, depth, tokens = {
        "split": (shape[2], shape[3], shape[1]),
        "heads": (shape[1], shape[3], shape[2]),
        "keys": (shape[1], shape[2], shape[3]),
    }[view]
    return (shape[0], heads * depth, 1, tokens)


def turned(view: View, axes: Shape) -> View | None:
    """The view of what a transpose gives, where it moves nothing that is stored."""
    return _TURNS.get((view, axes))


def reshaped(view: View, before: Shape, after: Shape) -> View | None:
    """The view of what a reshape gives, where it only splits channels into heads or joins them again."""
    if view == "last" and len(before) == 3 and len(after) == 4 and before[1] == after[1]:
        return "split"
    if view == "split" and len(after) == 3 and before[1] == after[1]:
        return "last"
    return None


def channel_axis(view: View, rank: int) -> int:
    """Which of the tensor's own axes holds the channels."""
    return rank - 1 if view == "last" else 1
