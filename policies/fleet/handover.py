"""Whether another node could finish a job whose floor cannot be kept here: early exits here, the
rest there.

It is CoDE's question (arXiv 2401.00631; ``policies.fleet.paths``) for one request that is about to
be refused: of all exits to stop at and all peers to go on, the one that keeps every bound soonest.
The threshold is that of the whole network, so the floor holds over both nodes together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from delen.core.bounds import Bounds
from delen.core.handover import Way
from delen.profile.cost_model import CostModel
from policies.fleet.api import LinkState, OperatingPoint
from policies.plan.planner import Planner


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node with the same bundle: its operating ``points`` at the job's input size, seconds
    that pass until it can begin (``backlog``, loading and the jobs on their way there included),
    how many times longer than its profile it takes, and the link to it."""

    name: str
    points: Sequence[OperatingPoint]
    backlog: float
    slowdown: float
    link: LinkState


def find_way(
    planner: Planner,
    costs: CostModel,
    bounds: Bounds,
    delay: float,
    waits: Sequence[float] | None,
    payloads: Sequence[float],
    peers: Iterable[Peer],
) -> Way | None:
    """The way to keep ``bounds`` that is done soonest, when ``delay`` seconds pass before segment 0
    and segments are in memory after ``waits``; None where there is no floor or no way.
    ``payloads`` are the bytes of the features after each exit but the last."""
    last, floor = planner.useful.deepest, bounds.min_accuracy
    if floor is None or not planner.by_threshold or planner.certify(last, floor) is None:
        return None
    latest = inf if bounds.max_latency is None else bounds.max_latency
    best, soonest = None, inf
    for peer in peers:
        ends = {point.exit: point for point in peer.points}
        for exit in planner.useful.exits[:-1]:
            if exit not in ends or last not in ends:
                continue
            way = _way(peer, ends[exit], ends[last], payloads[exit])
            ready = planner.arrival(exit, costs, delay, waits) + way.seconds
            joules = _total(costs.energies()[exit], way.joules)
            if ready > latest or not _affords(bounds, joules) or ready >= soonest:
                continue
            best, soonest = way, ready
    return best


def _way(peer: Peer, begin: OperatingPoint, end: OperatingPoint, payload: float) -> Way:
    seconds = (end.latency - begin.latency) * peer.slowdown + peer.backlog
    joules = None
    if begin.energy is not None and end.energy is not None:
        joules = end.energy - begin.energy
    return Way(peer.name, begin.exit, seconds + peer.link.seconds(payload), joules)


def _total(here: float | None, there: float | None) -> float | None:
    return None if here is None or there is None else here + there


def _affords(bounds: Bounds, joules: float | None) -> bool:
    cap = bounds.max_energy
    return cap is None or (joules is not None and joules <= cap)
