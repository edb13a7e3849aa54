"""Which models are to be kept in memory whole, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf


class KeptModels:
    """The names of models, the most important first, until a moment in seconds."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._until = -inf

    def keep(self, names: Sequence[str], until: float) -> None:
        """Keep these models, and no others."""
        self._names, self._until = tuple(names), until

    def names(self, now: float) -> tuple[str, ...]:
        return self._names if now < self._until else ()
