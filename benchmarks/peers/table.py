"""What was measured of the servers, side by side, and what is claimed of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.common import Figure

ALONE = "the network alone"
FULL, FIRST = "delen, all exits", "delen, exit 0"
EARLY, BOUNDED = "delen, early exits", "delen, max_latency"
COLUMNS = {
    "p50": ("p50", "ms"),
    "added": ("added", "ms"),
    "mean": ("mean", "ms"),
    "processor": ("processor", "ms"),
    "at 8": ("at 8", "/s"),
    "at 64": ("at 64", "/s"),
    "in bound": ("in bound", "/s"),
    "right": ("right", "%"),
    "memory": ("memory", "MB"),
    "ready": ("ready", "s"),
}
_WIDTH = 10


class Results:
    """Values of each server and column, one a round."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[float]]] = defaultdict(dict)

    def add(self, server: str, values: Mapping[str, float]) -> None:
        for column, value in values.items():
            self._values[server].setdefault(column, []).append(value)

    def drop(self, server: str) -> None:
        self._values.pop(server, None)

    def of(self, server: str, column: str) -> tuple[float, ...]:
        return tuple(self._values[server].get(column, ()))

    def median(self, server: str, column: str) -> float:
        return float(np.median(self.of(server, column)))

    def best(self, servers: Sequence[str], column: str, least: bool) -> tuple[float, ...]:
        """The values of the server of ``servers`` with the best median."""
        choose = min if least else max
        return self.of(choose(servers, key=lambda server: self.median(server, column)), column)

    def table(self) -> str:
        """Medians, a line a server."""
        head = "".join(f"{title:>{_WIDTH}}" for title, _ in COLUMNS.values())
        units = "".join(f"{unit:>{_WIDTH}}" for _, unit in COLUMNS.values())
        lines = [f"{'':<20}{head}", f"{'':<20}{units}"]
        for server in self._values:
            cells = (
                f"{self.median(server, column):>{_WIDTH}.4g}"
                if self.of(server, column)
                else " " * _WIDTH
                for column in COLUMNS
            )
            lines.append(f"{server:<20}{''.join(cells)}".rstrip())
        return "\n".join(lines)


def _each(first: Sequence[float], second: Sequence[float]) -> tuple[float, ...]:
    """Ratios, round by round."""
    return tuple(a / b for a, b in zip(first, second, strict=True))


def claims(results: Results, peers: Sequence[str]) -> list[Figure]:
    """Ratios to the best of ``peers``, if there is one, and what stands by itself."""
    figures: list[Figure] = []

    def add(name: str, values: tuple[float, ...], unit: str, limit: float, most: bool) -> None:
        if values:
            figures.append(Figure(name, values, unit, limit, most))

    def beside_best(
        name: str, server: str, column: str, limit: float, least: bool = True, floor: float = 0.0
    ) -> None:
        if peers and (values := results.of(server, column)):
            best = results.best(peers, column, least)
            ratios = _each(values, [max(value, floor) for value in best])
            add(f"{name}, of the best peer's", ratios, "x", limit, least)

    beside_best("added p50, all exits", FULL, "added", 0.7)
    beside_best("p50, exit 0", FIRST, "p50", 0.3)
    beside_best("mean latency, real images, early exits", EARLY, "mean", 0.45)
    add("accuracy that early exits lose", results.of(EARLY, "lost"), "points", 0.5, True)
    early, network = results.of(EARLY, "mean"), results.of(ALONE, "mean")
    if early:
        add("mean, early exits, of the network alone", _each(early, network), "x", 1.0, True)
    beside_best("requests/s at 8, all exits", FULL, "at 8", 1.5, least=False)
    batched = _each(results.of(FULL, "at 8"), results.of(ALONE, "at 8"))
    add("requests/s at 8, of the network's in batches of 8", batched, "x", 0.85, False)
    beside_best("requests/s at 64, all exits", FULL, "at 64", 2.0, least=False)
    beside_best("goodput at 64", BOUNDED, "in bound", 3.0, least=False, floor=1.0)
    add("processor time, all exits", results.of(FULL, "processor"), "ms", 0.7, True)
    add("processor time, exit 0", results.of(FIRST, "processor"), "ms", 0.4, True)
    beside_best("memory", FULL, "memory", 1.0)
    beside_best("seconds to ready", FULL, "ready", 1.0)
    add("answers of the last exit, all exits", results.of(FULL, "deepest"), "%", 100.0, False)
    return figures
