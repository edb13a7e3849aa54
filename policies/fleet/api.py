"""The protocol of fleet policies: what they see of nodes and clients, and what they answer.

A sentence on a wrong field begins with its name and says no figure: REST has other units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf, isfinite
from typing import Protocol

from delen.errors import InvalidInput

Size = tuple[int, int]


def _check(value: float, name: str, least: float = 0.0, most: float = inf) -> None:
    if not (isfinite(value) and least <= value <= most):
        bounds = f"at least {least:g}" if most == inf else f"from {least:g} to {most:g}"
        raise InvalidInput(f"{name} must be a finite number {bounds}", name)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One way in which a node can answer: up to ``exit``, at input ``size`` (None: the only one).

    ``latencies[b - 1]`` is the upper quantile of a batch of b, in seconds, on an undisturbed node.
    ``payload`` is the mean of what is sent for it, in bytes, ``energy`` joules a sample (None where
    nobody measured it).
    """

    exit: int
    accuracy: float
    latencies: tuple[float, ...]
    payload: float = 0.0
    size: Size | None = None
    energy: float | None = None

    def __post_init__(self) -> None:
        _check(self.exit, "exit")
        _check(self.accuracy, "accuracy", 0.0, 1.0)
        _check(self.payload, "payload")
        for side in self.size or ():
            _check(side, "size", 1)
        if self.energy is not None:
            _check(self.energy, "energy")
        if not self.latencies:
            raise InvalidInput(
                "latencies is empty; it needs the latency of a batch of 1", "latencies"
            )
        for latency in self.latencies:
            _check(latency, "latencies")
        if any(later < earlier for earlier, later in pairwise(self.latencies)):
            raise InvalidInput("latencies must ascend with the batch size", "latencies")

    @property
    def latency(self) -> float:
        return self.latencies[0]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model on a node: the digest of its bundle, its operating points, and whether its segments
    are in memory; ``load`` seconds pass before the first answer where they are not."""

    name: str
    bundle: str
    points: tuple[OperatingPoint, ...]
    resident: bool = True
    load: float = 0.0

    def __post_init__(self) -> None:
        _check(self.load, "load")
        if not self.points:
            raise InvalidInput(f"points of {self.name} is empty", "points")


@dataclass(frozen=True, slots=True)
class LinkState:
    """A link as it is believed to be: ``bandwidth`` in bytes a second, ``delay`` in seconds each
    way. A bandwidth of 0 carries nothing, an infinite one is the node's own."""

    bandwidth: float = inf
    delay: float = 0.0

    def __post_init__(self) -> None:
        if not self.bandwidth >= 0:
            raise InvalidInput("bandwidth must be at least 0", "bandwidth")
        _check(self.delay, "delay")

    def seconds(self, payload: float) -> float:
        """The round trip of ``payload`` bytes and a small answer; infinite where nothing passes."""
        if not self.bandwidth:
            return inf
        return payload / self.bandwidth + 2 * self.delay


@dataclass(frozen=True, slots=True)
class Standing:
    """What the daemon of ``node`` says of itself at ``said``, in seconds of the reader's clock.

    ``backlog`` is the work that waits, in seconds; ``slowdown`` how many times longer than its
    profile the node now takes; ``utilisation`` the share of the last period in which it ran.
    ``price`` is what a second on it costs, ``price_per_joule`` what a joule does (infinite where
    the least energy is wanted), both in the site's own unit. ``links`` are those to other nodes, by
    name.
    """

    node: str
    said: float
    models: tuple[ServedModel, ...]
    backlog: float = 0.0
    slowdown: float = 1.0
    utilisation: float = 0.0
    price: float = 0.0
    price_per_joule: float = 0.0
    links: Mapping[str, LinkState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isfinite(self.said):
            raise InvalidInput("said must be a finite number", "said")
        for name in ("backlog", "utilisation", "price"):
            _check(getattr(self, name), name)
        if not self.price_per_joule >= 0:
            raise InvalidInput("price_per_joule must be at least 0", "price_per_joule")
        if not 0 < self.slowdown < inf:
            raise InvalidInput("slowdown must be finite and above 0", "slowdown")

    def model(self, name: str) -> ServedModel | None:
        return next((model for model in self.models if model.name == name), None)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a client asks for: frames of ``model`` at ``fps`` for ``tenant``, each answered within
    ``deadline`` seconds. ``links`` are those to the nodes that it can reach, by name."""

    client: str
    model: str
    fps: float
    deadline: float
    links: Mapping[str, LinkState]
    tenant: str = "default"
    min_accuracy: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fps", "deadline"):
            if not 0 < getattr(self, name) < inf:
                raise InvalidInput(f"{name} must be finite and above 0", name)
        _check(self.min_accuracy, "min_accuracy", 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The deepest exit and the largest size that may be used; None: any."""

    exit: int | None = None
    size: Size | None = None

    def allows(self, point: OperatingPoint) -> bool:
        if self.exit is not None and point.exit > self.exit:
            return False
        return self.size is None or point.size is None or point.size <= self.size


@dataclass(frozen=True, slots=True)
class Price:
    """What a daemon's planner subtracts from an accuracy: per second of the node, per joule."""

    per_second: float = 0.0
    per_joule: float = 0.0


@dataclass(frozen=True, slots=True)
class Directive:
    """What ``node`` is to do for ``lease`` seconds from ``said`` on: ceilings and prices by tenant,
    and the models to keep resident. Afterwards the daemon decides alone again."""

    node: str
    said: float
    lease: float
    ceilings: Mapping[str, Ceiling] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    resident: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """Where a client's requests go for ``lease`` seconds: to ``node``, with ``max_latency`` seconds
    there, and nothing beyond ``ceiling``. ``expected`` seconds pass there until an answer. ``rate``
    is how many frames a second the client sends at most; it leaves out the others."""

    node: str
    lease: float
    max_latency: float
    ceiling: Ceiling
    expected: float = 0.0
    rate: float = inf


class FleetPolicy(Protocol):
    """Decides where requests run. Pure: times and figures are arguments; calls do not overlap.

    Policies leave out standings that are not fresh (``policies/fleet/freshness.py``). A client
    without a route serves itself, or waits. A hub copies its policy to another process, so pickle
    must be able to.
    """

    name: str

    def coordinate(
        self, standings: Sequence[Standing], demands: Sequence[Demand], now: float
    ) -> Sequence[Directive]:
        """The slow decision, about once a second, over all nodes and clients."""

    def route(self, request: Demand, standings: Sequence[Standing], now: float) -> Route | None:
        """The fast decision, for one client; None where no node can answer it."""
