"""Where a call goes, and where the last one went."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal, NamedTuple

from delen.errors import DelenError
from delen.wire.fleet import LONGEST_LEASE, Route

Origin = Literal["hub", "kept", "local"]


@dataclass(frozen=True, slots=True)
class TakenRoute:
    """Where a hub's client had an answer from.

    ``origin`` is ``hub`` where the lease of the route ran, ``kept`` where the client chose among
    the nodes that it knows, and ``local`` where this machine's own daemon answered: then ``node``
    is None.
    ``lease`` are the seconds that were left of it, 0 where none were. ``exit`` and ``size`` are the
    deepest exit and the largest size that the hub has the node use, None where it says none.
    """

    origin: Origin
    node: str | None
    url: str
    lease: float = 0.0
    exit: int | None = None
    size: tuple[int, int] | None = None


class Want(NamedTuple):
    """What one route is for. ``deadline`` is in seconds from the call to its answer."""

    model: str
    deadline: float
    min_accuracy: float


@dataclass(frozen=True, slots=True)
class HeldRoute:
    """A way to the node at ``url``; ``node`` is None for the daemon of this machine. ``route`` is
    the hub's answer of ``asked``, by the client's monotonic clock; without it the hub has named the
    node, and not sent this client there."""

    url: str
    node: str | None = None
    route: Route | None = None
    deadline: float = 0.0
    asked: float = 0.0

    @classmethod
    def of(cls, route: Route, want: Want, asked: float) -> HeldRoute:
        """DelenError where ``route`` can be none."""
        figures = {
            "lease_s": route.lease,
            "max_latency_ms": route.max_latency,
            "rate_fps": inf if route.rate is None else route.rate,
        }
        for name, value in figures.items():
            if not value > 0 or not (isfinite(value) or name == "rate_fps"):
                raise DelenError(f"the hub's {name} is {value:g}; it must be above 0")
        if route.lease > LONGEST_LEASE:
            raise DelenError(
                f"the hub's lease_s is {route.lease:g}; it must be at most {LONGEST_LEASE:g}"
            )
        return cls(route.url, route.node, route, want.deadline, asked)

    @property
    def until(self) -> float:
        """When its lease runs out, or has."""
        return -inf if self.route is None else self.asked + self.route.lease

    @property
    def rate(self) -> float:
        """Frames a second; infinite where the hub sets no limit."""
        return inf if self.route is None or self.route.rate is None else self.route.rate

    def network(self) -> float:
        """The seconds that the hub leaves to the network."""
        return 0.0 if self.route is None else max(0.0, self.deadline - self.route.max_latency)

    def taken(self, now: float) -> TakenRoute:
        """What is said of an answer by it."""
        if self.route is None:
            return TakenRoute("local" if self.node is None else "kept", self.node, self.url)
        left, ceiling = max(0.0, self.until - now), self.route.ceiling
        origin: Origin = "hub" if left else "kept"
        return TakenRoute(origin, self.node, self.url, left, ceiling.exit, ceiling.size)
