"""What became of every frame of a fleet run, and its figures."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.simulate.fleet.site import Site
from delen.simulate.summary import quantile
from policies.fleet.api import OperatingPoint


class Fate(IntEnum):
    """How a frame ended. ``NO_ROUTE``: no node for its client. ``FULL``: too many were on their
    way. ``NOT_SENT``: no size of it would have arrived in time. ``REFUSED``: by its node. ``LOST``:
    without any answer."""

    ANSWERED = 0
    NO_ROUTE = 1
    FULL = 2
    NOT_SENT = 3
    REFUSED = 4
    LOST = 5


class FleetLog:
    """A row a frame."""

    def __init__(self, policy: str, site: Site) -> None:
        self.policy = policy
        self.site = site
        self._node_numbers = {node.name: number for number, node in enumerate(site.nodes)}
        self._client: list[int] = []
        self._at: list[float] = []
        self._fate: list[int] = []
        self._node: list[int] = []
        self._latency: list[float] = []
        self._accuracy: list[float] = []
        self._energy: list[float] = []
        self._decisions: list[float] = []
        self.busy: dict[str, float] = {}
        self.joules: dict[str, float] = {}

    def captured(self, client: int, now: float) -> int:
        self._client.append(client)
        self._at.append(now)
        self._fate.append(Fate.LOST)
        self._node.append(-1)
        self._latency.append(np.nan)
        self._accuracy.append(0.0)
        self._energy.append(0.0)
        return len(self._at) - 1

    def sent(self, frame: int, node: str) -> None:
        self._node[frame] = self._node_numbers[node]

    def answered(self, frame: int, now: float, point: OperatingPoint) -> None:
        self._fate[frame] = Fate.ANSWERED
        self._latency[frame] = now - self._at[frame]
        self._accuracy[frame] = point.accuracy
        self._energy[frame] = point.energy or 0.0

    def dropped(self, frame: int, fate: Fate) -> None:
        self._fate[frame] = fate

    def decided(self, seconds: float) -> None:
        self._decisions.append(seconds)

    def used(self, node: str, busy: float, joules: float) -> None:
        self.busy[node], self.joules[node] = busy, joules

    def __len__(self) -> int:
        return len(self._at)

    @property
    def at(self) -> NDArray[np.float64]:
        return np.array(self._at)

    @property
    def client(self) -> NDArray[np.int64]:
        return np.array(self._client, dtype=np.int64)

    @property
    def node(self) -> NDArray[np.int64]:
        """Where each frame was sent; -1 if it was not."""
        return np.array(self._node, dtype=np.int64)

    @property
    def latency(self) -> NDArray[np.float64]:
        return np.array(self._latency)

    @property
    def effective(self) -> NDArray[np.float64]:
        """The accuracy of each frame's answer; 0 if it was late, missing, or below its floor."""
        clients = self.site.clients
        deadlines = np.array([each.deadline for each in clients])[self.client]
        floors = np.array([each.min_accuracy for each in clients])[self.client]
        accuracy = np.array(self._accuracy)
        kept = (self.latency <= deadlines) & (accuracy >= floors)
        return np.where(kept, accuracy, 0.0)

    def summary(self) -> dict[str, Any]:
        """The JSON object of the run."""
        everything = np.ones(len(self), dtype=bool)
        client, node = self.client, self.node
        decisions = 1e3 * np.array(self._decisions)
        return {
            "policy": self.policy,
            **self._figures(everything),
            "energy_j": float(sum(self.joules.values())),
            "clients": {
                each.name: self._figures(client == number)
                for number, each in enumerate(self.site.clients)
            },
            "nodes": {
                each.name: {
                    **self._figures(node == number),
                    "utilisation": self.busy[each.name] / self.site.seconds,
                    "energy_j": self.joules[each.name],
                }
                for number, each in enumerate(self.site.nodes)
            },
            "decision_ms": {"p50": quantile(decisions, 0.5), "p99": quantile(decisions, 0.99)},
        }

    def _figures(self, rows: NDArray[np.bool_]) -> dict[str, Any]:
        fate, latency = np.array(self._fate)[rows], self.latency[rows]
        effective = self.effective[rows]
        answered = fate == Fate.ANSWERED
        sent = answered | (fate == Fate.REFUSED) | (fate == Fate.LOST)
        missed = int((answered & (effective == 0)).sum())
        count = len(fate)
        latencies = 1e3 * latency[answered]
        return {
            "requests": count,
            "answered": int(answered.sum()),
            "refused": int((fate == Fate.REFUSED).sum()),
            "dropped": {
                "no_route": int((fate == Fate.NO_ROUTE).sum()),
                "full": int((fate == Fate.FULL).sum()),
                "not_sent": int((fate == Fate.NOT_SENT).sum()),
                "lost": int((fate == Fate.LOST).sum()),
            },
            "missed": missed,
            "miss_rate": float((missed + (sent & ~answered).sum()) / max(1, sent.sum())),
            "effective_accuracy": float(effective.mean()) if count else 0.0,
            "latency_ms": {f"p{100 * q:.0f}": quantile(latencies, q) for q in (0.5, 0.95, 0.99)},
        }
