"""Ids in ascending order of a value; discarded ids are dropped later."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf

_SPARE = 64
"""Dead entries that may be kept beyond as many as there are live ones."""

_NONE = (inf, -1)


class LazyHeap:
    """The least value is found at once, adding and discarding cost O(log n) on average."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._values: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._values)

    def add(self, id: int, value: float) -> None:
        """Add ``id`` at ``value``, which replaces the value that it had."""
        self._values[id] = value
        heappush(self._heap, (value, id))
        if len(self._heap) > 2 * len(self._values) + _SPARE:
            self._heap = [(value, id) for id, value in self._values.items()]
            heapify(self._heap)

    def discard(self, id: int) -> None:
        """Forget ``id`` if it is there."""
        self._values.pop(id, None)

    def first(self) -> tuple[float, int]:
        """The least value and its id, the lowest of several; inf and -1 if there is none."""
        heap, values = self._heap, self._values
        while heap:
            first = heap[0]
            if values.get(first[1]) == first[0]:
                return first
            heappop(heap)
        return _NONE
