"""A site to simulate: its nodes, the places from which clients reach them, and its hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from delen.simulate.streams.link import LinkSettings
from policies.fleet.api import OperatingPoint, ServedModel

LARGEST = "largest"
"""The controller that is no plug-in: it sends the largest frame that its route leaves time for."""

Span = tuple[float, float]
"""From and until, in seconds."""


def check_spans(spans: Iterable[Span], name: str) -> None:
    """ValueError unless spans ascend and do not overlap."""
    listed = list(spans)
    for start, end in listed:
        if not 0 <= start < end:
            raise ValueError(f"{name} has [{start:g}, {end:g}]; each must end after it began")
    for (_, end), (start, _) in pairwise(listed):
        if start < end:
            raise ValueError(f"{name} has a span from {start:g} s on before the one before it ends")


def inside(spans: Iterable[Span], now: float) -> bool:
    return any(start <= now < end for start, end in spans)


@dataclass(frozen=True, slots=True)
class NodeModel:
    """A model on one node: what its daemon plans with, and what it typically takes:
    ``typical[p][b - 1]`` seconds for a batch of b at point p."""

    served: ServedModel
    typical: tuple[tuple[float, ...], ...]

    @property
    def points(self) -> tuple[OperatingPoint, ...]:
        return self.served.points


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """A node. Batches vary by ``noise`` (the standard deviation of the logarithm), and take
    ``factor`` times as long in each span of ``slow``; while ``down`` it loses what it has and
    answers nobody. ``clock`` is how far its clock is ahead of the hub's."""

    name: str
    models: tuple[NodeModel, ...]
    noise: float = 0.02
    price: float = 0.0
    price_per_joule: float = 0.0
    down: tuple[Span, ...] = ()
    slow: tuple[tuple[float, float, float], ...] = ()
    clock: float = 0.0

    def __post_init__(self) -> None:
        check_spans(self.down, "down")
        check_spans([(start, end) for start, end, _ in self.slow], "slow")


@dataclass(frozen=True, slots=True)
class Place:
    """Where clients are: their own ``uplink``, the ``delays`` from there to each node in seconds
    each way, and the nodes that are ``local``, without a network between."""

    name: str
    uplink: LinkSettings
    delays: Mapping[str, float]
    local: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """A client: a camera at ``fps`` from ``start`` until ``end``, first at ``place``, from each
    time of ``moves`` on at another. ``controller`` chooses the size of each frame within the
    client's route (``delen/simulate/fleet/controller.py``)."""

    name: str
    model: str
    fps: float
    deadline: float
    place: str
    tenant: str = "default"
    min_accuracy: float = 0.0
    start: float = 0.0
    end: float = inf
    moves: tuple[tuple[float, str], ...] = ()
    controller: str = LARGEST


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Decisions every ``period`` seconds, standings and demands every ``standing``; each message
    takes ``delay``. While ``down`` the hub neither hears nor answers."""

    period: float = 1.0
    standing: float = 1.0
    delay: float = 0.005
    down: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        check_spans(self.down, "down")


@dataclass(frozen=True, slots=True)
class Site:
    seconds: float
    nodes: tuple[NodeSettings, ...]
    places: Mapping[str, Place]
    clients: tuple[ClientSettings, ...]
    hub: HubSettings = field(default_factory=HubSettings)
