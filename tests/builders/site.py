"""Small sites to simulate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from delen.simulate.fleet.site import (
    ClientSettings,
    HubSettings,
    NodeModel,
    NodeSettings,
    Place,
    Site,
)
from delen.simulate.streams.bandwidth import constant
from delen.simulate.streams.link import LinkSettings
from policies.fleet.api import ServedModel
from tests.builders.fleet import MODEL, POINTS

SLOWER = 4.0


def node(name: str, times: float = 1.0, **more: Any) -> NodeSettings:
    """A node that takes ``times`` as long as POINTS say, without noise."""
    points = tuple(
        replace(
            point,
            latencies=tuple(times * each for each in point.latencies),
            payload=1.0,
            energy=0.1,
        )
        for point in POINTS
    )
    typical = tuple(point.latencies for point in points)
    return NodeSettings(name, (NodeModel(ServedModel(MODEL, "a", points), typical),), 0.0, **more)


def site(
    *nodes: NodeSettings,
    clients: int = 2,
    fps: float = 10.0,
    seconds: float = 10.0,
    mbps: float = 80.0,
    hub: HubSettings | None = None,
    **client: Any,
) -> Site:
    """A board that its clients have with them (``near``) and others behind a link."""
    nodes = nodes or (node("near", SLOWER), node("far"))
    delays = {each.name: 2e-3 for each in nodes if each.name != "near"}
    local = tuple(each.name for each in nodes if each.name == "near")
    place = Place("hall", LinkSettings(constant(mbps, 100.0), 2e-3), delays, local)
    cameras = tuple(
        ClientSettings(f"c{n}", MODEL, fps, 0.1, **{"place": "hall", **client})
        for n in range(clients)
    )
    return Site(seconds, tuple(nodes), {"hall": place}, cameras, hub or HubSettings())
