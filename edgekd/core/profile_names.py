"""Device names as people write them: aliases, misspellings, and boards that are not shipped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NOT_SHIPPED = {
    "jetsonnano": (
        "the original Jetson Nano is not shipped: its last JetPack (4.6, Ubuntu 18.04) has Python 3.6 and glibc 2.27, "
        "and no current LiteRT or onnxruntime wheel runs there; the Jetson Orin Nano is shipped as 'jetson-orin-nano'"
    ),
}
NOT_SHIPPED["nvidiajetsonnano"] = NOT_SHIPPED["jetsonnano"]
NOT_SHIPPED["jetsonnano2gb"] = NOT_SHIPPED["jetsonnano4gb"] = NOT_SHIPPED["jetsonnano"]


def squash(name: str) -> str:
    """The name without case and punctuation: `Raspberry-Pi 4B` and `raspberrypi4b` are one name."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name most like `name`, or None where none is similar enough."""
    by_squashed: dict[str, str] = {}
    for candidate in known:
        by_squashed.setdefault(squash(candidate), candidate)
    found = difflib.get_close_matches(squash(name), by_squashed, n=1, cutoff=cutoff)
    return by_squashed[found[0]] if found else None
