"""How a pipeline tells people what it is doing, without knowing how it is shown."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Takes what happens during long work."""

    def stage(self, name: str, detail: str = "") -> None:
        """A stage begins."""
        ...

    def update(self, message: str) -> None:
        """The stage that runs has come further."""
        ...

    def warn(self, message: str) -> None:
        """Something a person must know; it is in the report too."""
        ...
