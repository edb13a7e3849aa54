"""What became of every frame of a fleet run, and its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.core.variant import format_size
from delen.simulate.fleet.client import CAUSES, ClientFrames
from delen.simulate.fleet.site import Site
from delen.simulate.summary import quantile


@dataclass(frozen=True, slots=True)
class NodeUse:
    """Seconds that a node ran, and joules that it took."""

    busy: float
    joules: float


class FleetLog:
    """A row a frame, client by client; ``decisions`` are the seconds that each took."""

    def __init__(
        self,
        policy: str,
        site: Site,
        clients: Sequence[ClientFrames],
        used: Mapping[str, NodeUse],
        decisions: Sequence[float],
    ) -> None:
        self.policy, self.site, self.clients = policy, site, clients
        self._used, self._decisions = used, decisions
        numbers: dict[str | None, int] = {node.name: n for n, node in enumerate(site.nodes)}
        self.client: NDArray[np.int64] = np.repeat(
            np.arange(len(clients)), [len(each.frames) for each in clients]
        )
        self.at: NDArray[np.float64] = _joined([each.frames.captured for each in clients])
        self.node: NDArray[np.int64] = _joined(
            [np.array([numbers.get(n, -1) for n in each.node], dtype=np.int64) for each in clients]
        )
        """Where each frame was sent; -1 if it was not."""
        self.latency: NDArray[np.float64] = _joined([each.frames.latency for each in clients])
        self.effective: NDArray[np.float64] = _joined(
            [
                each.frames.correct * each.frames.in_time(settings.deadline)
                for each, settings in zip(clients, site.clients, strict=True)
            ]
        )
        """The accuracy of each answer; 0 if it was late, missing, or below its floor."""
        self._refused: NDArray[np.bool_] = _joined([each.refused for each in clients])

    def __len__(self) -> int:
        return len(self.at)

    def summary(self) -> dict[str, Any]:
        """The JSON object of the run."""
        decisions = 1e3 * np.array(self._decisions)
        clients = {
            settings.name: self._client(number, each, settings.controller)
            for number, (each, settings) in enumerate(
                zip(self.clients, self.site.clients, strict=True)
            )
        }
        return {
            "policy": self.policy,
            **self._figures(np.ones(len(self), dtype=bool)),
            "switches": sum(each["switches"] for each in clients.values()),
            "dropped": {
                cause: sum(each.dropped[cause] for each in self.clients) for cause in CAUSES
            },
            "energy_j": float(sum(each.joules for each in self._used.values())),
            "clients": clients,
            "nodes": {
                node.name: {
                    **self._figures(self.node == number),
                    "utilisation": self._used[node.name].busy / self.site.seconds,
                    "energy_j": self._used[node.name].joules,
                }
                for number, node in enumerate(self.site.nodes)
            },
            "decision_ms": {"p50": quantile(decisions, 0.5), "p99": quantile(decisions, 0.99)},
        }

    def _client(self, number: int, client: ClientFrames, controller: str) -> dict[str, Any]:
        sent = zip(client.size, client.node, strict=True)
        sizes = Counter(size for size, node in sent if node is not None)
        return {
            "controller": controller,
            **self._figures(self.client == number),
            "sizes": {
                "?" if size is None else format_size(size): sizes[size]
                for size in sorted(sizes, key=lambda size: size or (0, 0))
            },
            "switches": client.switches,
            "dropped": dict(client.dropped),
        }

    def _figures(self, rows: NDArray[np.bool_]) -> dict[str, Any]:
        latency, effective = self.latency[rows], self.effective[rows]
        answered, sent = ~np.isnan(latency), self.node[rows] >= 0
        missed = int((answered & (effective == 0)).sum())
        latencies = 1e3 * latency[answered]
        return {
            "requests": len(latency),
            "answered": int(answered.sum()),
            "refused": int(self._refused[rows].sum()),
            "missed": missed,
            "miss_rate": float((missed + (sent & ~answered).sum()) / max(1, sent.sum())),
            "effective_accuracy": float(effective.mean()) if len(effective) else 0.0,
            "latency_ms": {f"p{100 * q:.0f}": quantile(latencies, q) for q in (0.5, 0.95, 0.99)},
        }


def _joined(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(columns)
