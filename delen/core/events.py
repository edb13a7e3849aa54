"""What happened, for those who watch: a short memory that all readers share."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias

EventName: TypeAlias = Literal[
    "model_ready",
    "model_unloaded",
    "model_failed",
    "guarantee_lost",
    "guarantee_regained",
    "mode_changed",
    "throttling_changed",
    "source_degraded",
    "source_recovered",
    "constraint_binds",
    "constraint_relaxed",
    "draining",
]
KEPT = 256
"""Events that are kept. A reader who is further behind has lost those before."""


@dataclass(frozen=True, slots=True)
class Event:
    """``number`` counts events since the start, ``time`` is in seconds since 1970. ``fields`` say
    what it happened to."""

    number: int
    name: EventName
    time: float
    fields: Mapping[str, str]


class EventBus:
    """Keeps the last events. Safe to call from many threads; who publishes waits for no reader."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(4)
        self._count = 0
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._wakes: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def publish(self, name: EventName, **fields: str) -> None:
        with self._lock:
            self._count += 1
            self._kept.append(Event(self._count, name, time.time(), fields))
            for wake in self._wakes:
                wake()

    def id_of(self, event: Event) -> str:
        """What names ``event`` also to who comes back after a restart of the daemon."""
        return f"{self._run}-{event.number}"

    def read(self, wake: Callable[[], None], last_id: str | None = None) -> EventReader:
        """A reader of what follows the event ``last_id``; without one, of what happens from now on.
        After an id of another run it reads all that is kept. ``wake`` is called, on the publisher's
        thread, whenever there is something to take; it has to be quick."""
        with self._lock:
            run, _, number = (last_id or f"{self._run}-{self._count}").rpartition("-")
            is_ours = run == self._run and number.isdecimal() and len(number) < 16
            seen = min(int(number), self._count) if is_ours else 0
            self._wakes.append(wake)
            return EventReader(self, seen, wake)

    def _after(self, seen: int) -> list[Event]:
        with self._lock:
            return list(islice(self._kept, max(0, len(self._kept) - self._count + seen), None))

    def _forget(self, wake: Callable[[], None]) -> None:
        with self._lock:
            self._wakes.remove(wake)


class EventReader:
    """Reads events in order, each once."""

    def __init__(self, bus: EventBus, seen: int, wake: Callable[[], None]) -> None:
        self._bus = bus
        self._seen = seen
        self._wake = wake

    def take(self) -> tuple[int, list[Event]]:
        """How many events were lost since the last call, and those that followed them."""
        events = self._bus._after(self._seen)
        lost = events[0].number - self._seen - 1 if events else 0
        self._seen += lost + len(events)
        return lost, events

    def close(self) -> None:
        self._bus._forget(self._wake)
