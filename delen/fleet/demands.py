"""The demands of clients, each for as long as its route holds."""

from __future__ import annotations

import threading

from delen.errors import Overloaded
from policies.fleet.api import Demand

MOST_CLIENTS = 100_000


class Demands:
    """What clients asked for in the last ``seconds``. Threads share it."""

    def __init__(self, seconds: float, most: int = MOST_CLIENTS) -> None:
        self._seconds = seconds
        self._most = most
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Demand, float]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def note(self, demand: Demand, now: float) -> None:
        """A client asks again, or for the first time: Overloaded where there is no room."""
        with self._lock:
            if len(self._known) >= self._most and demand.client not in self._known:
                self._drop_old(now)
                if len(self._known) >= self._most:
                    raise Overloaded(f"{self._most} clients are known already", self._seconds)
            self._known[demand.client] = demand, now + self._seconds

    def alive(self, now: float) -> list[Demand]:
        """Those that hold; the others are forgotten."""
        with self._lock:
            self._drop_old(now)
            return [demand for demand, _ in self._known.values()]

    def _drop_old(self, now: float) -> None:
        self._known = {client: kept for client, kept in self._known.items() if kept[1] > now}
