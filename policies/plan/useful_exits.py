"""Which exits are worth reaching, and which one comes next."""

from __future__ import annotations

from collections.abc import Sequence


class UsefulExits:
    """The ``exits`` that are more accurate than every earlier one; the others are dominated.

    ``accuracies`` are those of all exits, at least one.
    """

    def __init__(self, accuracies: Sequence[float]) -> None:
        useful: list[int] = []
        for exit, accuracy in enumerate(accuracies):
            if not useful or accuracy > accuracies[useful[-1]]:
                useful.append(exit)
        self.exits = tuple(useful)
        self.first, self.deepest = useful[0], useful[-1]
        count = len(accuracies)
        self._next = tuple(
            tuple(
                next((later for later in useful if exit < later <= deepest), None)
                for deepest in range(count)
            )
            for exit in range(-1, count)
        )

    def next(self, exit: int, deepest: int) -> int | None:
        """The first useful exit after ``exit`` (-1: none was reached yet), up to ``deepest``, if
        any."""
        return self._next[exit + 1][deepest]
