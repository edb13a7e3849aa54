"""What a node gets of the bounds of a call, whose own time begins at the client."""

from __future__ import annotations

from dataclasses import replace
from math import floor

from delen.core.bounds import Bounds, OnInfeasible
from delen.errors import InfeasibleBound, Nearest

LEAST = 0.001
"""Seconds that a node has for the best that can be had in time where no time is left."""

_STEP = 0.0005
"""Addresses of requests are kept, so few of them are wanted."""


def remaining(
    bounds: Bounds, on_infeasible: OnInfeasible, url: str, network: float, spent: float
) -> Bounds:
    """``bounds`` for the node at ``url``: without ``network`` seconds of the way there and back,
    and the seconds that were ``spent`` on other nodes. InfeasibleBound where nothing is left."""
    whole = bounds.max_latency
    if whole is None:
        return bounds
    left = whole - spent - network
    if left <= 0:
        if on_infeasible == "reject":
            raise InfeasibleBound(
                f"max_latency is over before {url} could answer: the network takes "
                f"{1e3 * network:.3g} ms, and {1e3 * spent:.3g} ms have passed",
                Nearest(max_latency=whole - left + LEAST),
            )
        left = LEAST
    steps = floor(left / _STEP)
    return replace(bounds, max_latency=steps * _STEP if steps else left)


def beside_network(error: InfeasibleBound, asked: Bounds, sent: Bounds) -> InfeasibleBound:
    """``error`` of a node as it is for the caller, whose bound the network and others share."""
    nearest = error.nearest
    if asked.max_latency is None or sent.max_latency is None or nearest.max_latency is None:
        return error
    spent = asked.max_latency - sent.max_latency
    return InfeasibleBound(
        f"{error} (max_latency without {1e3 * spent:.3g} ms of the network)",
        replace(nearest, max_latency=nearest.max_latency + spent),
    )
