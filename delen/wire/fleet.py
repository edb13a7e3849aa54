"""What daemons, a hub and its clients say to each other: standings, directives and routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, field

from delen.core.bounds import DEFAULT_TENANT
from delen.core.variant import Size
from delen.wire.message import Megabits, Message, Milli, Request, about

LONGEST_LEASE = 3600.0
"""Seconds for which a directive may be in force."""

MOST_NAMES = 1000
"""Tenants, models or nodes that one message names."""

_Pixels: TypeAlias = Annotated[int, Meta(ge=1)]
_Price: TypeAlias = Annotated[float, Meta(ge=0)]
_NOT_NEGATIVE: dict[str, Any] = {"minimum": 0}
_FRACTION: dict[str, Any] = {"minimum": 0, "maximum": 1}


class Link(Message, frozen=True):
    """A link as it is believed to be."""

    bandwidth: Annotated[Megabits | None, about("null: unknown", **_NOT_NEGATIVE)] = field(
        name="bandwidth_mbps", default=None
    )
    delay: Annotated[Milli, about("each way", **_NOT_NEGATIVE)] = field(  # type: ignore[assignment]
        name="delay_ms", default_factory=float
    )


class LinkGiven(Link, frozen=True, forbid_unknown_fields=True):
    """A link as the client believes it to be."""


class StandingPoint(Message, frozen=True):
    """One way in which a node can answer."""

    exit: int
    size: Size | None
    accuracy: Annotated[float, about("expected over all inputs")]
    latencies: Annotated[
        tuple[Milli, ...],
        about("upper quantile of a batch of 1, 2, ... on an undisturbed node; they ascend"),
    ] = field(name="latencies_ms")
    payload: Annotated[float, about("of one input as it is sent")] = field(name="payload_bytes")
    energy: Annotated[Milli | None, about("of one sample; null: nobody measured it")] = field(
        name="energy_mj"
    )


class StandingModel(Message, frozen=True):
    """A model that a node can answer with."""

    name: str
    bundle: Annotated[str, about("SHA-256 of what is served")]
    resident: Annotated[bool, about("its segments are in memory")]
    load: Annotated[Milli, about("until its first answer where they are not")] = field(
        name="load_ms"
    )
    points: tuple[StandingPoint, ...]


class Standing(Message, frozen=True):
    """What a daemon says of itself. Its clock is not compared with another's: a reader notes by its
    own when it began to ask."""

    node: str
    time: Annotated[float, about("seconds since 1970 by the daemon's clock")]
    models: Annotated[
        tuple[StandingModel, ...], about("those with a profile; without one nothing is known")
    ]
    backlog: Annotated[Milli, about("work that waits")] = field(name="backlog_ms")
    slowdown: Annotated[float, about("how many times longer than its profile it now takes")]
    utilisation: Annotated[float, about("share of the last seconds in which it ran")]
    price: Annotated[float, about("of a second, in accuracy")]
    price_per_joule: Annotated[float | None, about("in accuracy; null: without limit")]
    links: Mapping[str, Link] = field(default_factory=dict)


class Ceiling(Message, frozen=True):
    """The deepest exit and the largest size that may be used."""

    exit: Annotated[Annotated[int, Meta(ge=0)] | None, about("null: any")] = None
    size: Annotated[tuple[_Pixels, _Pixels] | None, about("height, width; null: any")] = None


class CeilingChange(Ceiling, frozen=True, forbid_unknown_fields=True):
    """The deepest exit and the largest size that a tenant's requests may use."""


class TenantPrice(Message, frozen=True):
    """What is subtracted from an accuracy when a plan is chosen."""

    per_second: Annotated[_Price, about("of the device")] = 0.0
    per_joule: _Price = 0.0


class TenantPriceChange(TenantPrice, frozen=True, forbid_unknown_fields=True):
    """What a tenant's requests pay for a second and a joule, in accuracy."""


class Directives(Request, frozen=True):
    """What a daemon is to do for a while. Ceilings and prices are by tenant. It replaces what was
    in force; without a ceiling, a price or a model it withdraws that."""

    lease: Annotated[
        Annotated[float, Meta(gt=0, le=LONGEST_LEASE)] | None,
        about("for how long; needed where something is named"),
    ] = field(name="lease_s", default=None)
    ceilings: Annotated[dict[str, CeilingChange], Meta(max_length=MOST_NAMES)] = field(
        default_factory=dict
    )
    prices: Annotated[dict[str, TenantPriceChange], Meta(max_length=MOST_NAMES)] = field(
        default_factory=dict
    )
    resident: Annotated[
        tuple[str, ...], about("models to keep in memory"), Meta(max_length=MOST_NAMES)
    ] = ()


class DirectivesInForce(Message, frozen=True):
    """The directives in force; empty where there are none and the daemon decides alone."""

    left: Annotated[float | None, about("until they run out; null: none are in force")] = field(
        name="left_s"
    )
    ceilings: Mapping[str, Ceiling]
    prices: Mapping[str, TenantPrice]
    resident: tuple[str, ...]
    not_resident: Annotated[
        Mapping[str, str], about("models to keep in memory that are not there whole, and why")
    ]


class RouteRequest(Request, frozen=True, kw_only=True):
    """Where a client's frames are to go."""

    client: str
    model: str
    fps: Annotated[float, about(exclusiveMinimum=0)]
    deadline: Annotated[Milli, about("of each frame", exclusiveMinimum=0)] = field(
        name="deadline_ms"
    )
    tenant: str = DEFAULT_TENANT
    min_accuracy: Annotated[float, about(**_FRACTION)] = 0.0
    links: Annotated[
        dict[str, LinkGiven],
        about("to the nodes that the client can reach"),
        Meta(max_length=MOST_NAMES),
    ] = field(default_factory=dict)
    bundle: Annotated[
        str | None, about("SHA-256 of the one to use, where nodes have different ones")
    ] = None


class Route(Message, frozen=True):
    """Where a client's frames go for a while. The client leaves out what is beyond the rate."""

    node: str
    url: str
    lease: float = field(name="lease_s")
    max_latency: Annotated[Milli, about("what the node may take")] = field(name="max_latency_ms")
    ceiling: Ceiling
    expected: Annotated[Milli, about("until an answer, at the node")] = field(name="expected_ms")
    rate: Annotated[float | None, about("frames a second; null: without limit")] = field(
        name="rate_fps"
    )


NodeState: TypeAlias = Literal["up", "down", "unknown"]


class Node(Message, frozen=True):
    """A node as the hub sees it; what it says of itself is null before its first standing."""

    name: str
    url: str
    state: NodeState
    age: Annotated[float | None, about("of its last standing; null: there is none")] = field(
        name="age_s"
    )
    problem: str | None
    models: tuple[str, ...]
    backlog: Milli | None = field(name="backlog_ms")
    slowdown: float | None
    utilisation: float | None


class Nodes(Message, frozen=True):
    """The nodes of a hub."""

    nodes: tuple[Node, ...]
