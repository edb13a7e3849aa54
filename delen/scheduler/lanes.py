"""The batches that run now, at most one a lane, and when a lane is predicted to get free."""

from __future__ import annotations

from dataclasses import dataclass

from delen.dispatch import Key, Task


@dataclass(slots=True, eq=False)
class Batch:
    """Tasks that run one segment together from ``began``; ``predicted`` seconds are typical."""

    key: Key
    tasks: tuple[Task, ...]
    began: float
    predicted: float


class Lanes:
    """``count`` batches can run at once."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"a device needs at least one lane, not {count}")
        self.count = count
        self.free = count
        self._running: list[Batch] = []

    def start(self, batch: Batch) -> None:
        self._running.append(batch)
        self.free -= 1

    def end(self, batch: Batch) -> None:
        """Free the lane of ``batch``; ValueError if it does not run."""
        self._running.remove(batch)
        self.free += 1

    def next_free(self, now: float) -> float:
        """When a lane is free: ``now`` if one is, else at the earliest predicted end."""
        if self.free:
            return now
        return max(now, min(batch.began + batch.predicted for batch in self._running))

    def wait(self, now: float) -> float:
        """Seconds until a lane is free."""
        return self.next_free(now) - now if self._running else 0.0

    @property
    def idle(self) -> bool:
        return not self._running
