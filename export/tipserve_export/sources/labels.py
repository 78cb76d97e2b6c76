"""What a user may say about a bundle, in place of what the source says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Labels:
    """The options ``--name``, ``--template`` and ``--licence``."""

    name: str | None = None
    templates: tuple[str, ...] | None = None
    licence: str | None = None

    def name_or(self, default: str) -> str:
        """The name given (an empty one is refused later), or the source's own."""
        return default if self.name is None else self.name
