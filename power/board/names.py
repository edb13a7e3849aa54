"""Names of things of which a device may have several alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def distinct(names: Sequence[str], places: Sequence[str]) -> list[str]:
    """``names``, those that occur more than once with their place behind an ``@``."""
    times = Counter(names)
    return [
        f"{name}@{place}" if times[name] > 1 else name
        for name, place in zip(names, places, strict=True)
    ]
