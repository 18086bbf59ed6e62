"""The plot of layers as a file of its own, for `edgekd quantize`, which writes no page."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.records import LayerReport
from edgekd.report.plots import layer_noise

_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_COLOURS = {
    "ink": "#1c1c1a",
    "muted": "#5c5b56",
    "line": "#dddbd3",
    "accent": "#1f5fa8",
    "missed": "#b3261e",
    "inconclusive": "#a86400",
    "card": "#ffffff",
}
"""What the report's page would give it, in light."""


def layers_svg(layers: Sequence[LayerReport]) -> str:
    """Signal to rounding noise behind each layer and the share that its range clips, as a whole SVG document.

    Raises:
        ValueError: there are no layers to draw.
    """
    if not layers:
        raise ValueError("there are no layers to draw")
    drawn = layer_noise(layers).replace("<svg", f"<svg {_NAMESPACES}", 1)
    values = "".join(f"--{name}:{colour};" for name, colour in _COLOURS.items())
    start = drawn.index(">") + 1
    return f"{drawn[:start]}<style>svg{{{values}background:{_COLOURS['card']}}}</style>{drawn[start:]}"
