"""Paths of segments over nodes, and exit thresholds with them (CoDE, arXiv 2401.00631).

A path assigns every segment of a network to a node. CoDE's reward of a path is
``F(p) = ξ(accuracy)·ζ(throughput)``; its abstract does not give ξ and ζ. Here ξ is the expected
accuracy of the answers that are in time, and ζ the share of the frames that the slowest node or
link of the path keeps up with, ``min(1, throughput/fps)``. All paths are enumerated, with every
threshold of a grid: samples that are confident at an exit leave there, and cost nodes behind it
nothing.

Where a path changes node, features or the input are sent, whichever arrives first: a node that gets
the input runs the segments before it anew. Among equal rewards the path with the fewest joules
wins.

Two baselines decide by simplified rules: ``QueueRule`` in the manner of MDI-Exit (arXiv 2408.05247:
queue lengths decide on offloading and threshold), ``DelayRule`` in the manner of DTO-EE (arXiv
2412.08284: the offloaded share and the threshold from a convex model of delays).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Protocol

from policies.fleet.api import LinkState

MOST_SEGMENTS, MOST_NODES = 5, 3
EQUAL = 0.002
"""Rewards that are this near to the best are equal; joules decide between them."""


@dataclass(frozen=True, slots=True)
class ExitTable:
    """What a ``threshold`` means: ``reaches[k]`` is the share of samples that needs segment k, and
    ``accuracy[k]`` that of all answers where exit k is the deepest."""

    threshold: float
    reaches: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PathNetwork:
    """A network to be run in parts: bytes of its ``input``, of the ``features`` after each segment
    but the last, and its exits by threshold (ascending)."""

    input: float
    features: tuple[float, ...]
    tables: tuple[ExitTable, ...]

    @property
    def exits(self) -> int:
        return len(self.tables[0].reaches)


@dataclass(frozen=True, slots=True)
class PathNode:
    """Seconds and joules of each segment on a node, and the seconds of work that wait there.
    ``per_byte`` joules are what sending costs it."""

    name: str
    seconds: tuple[float, ...]
    joules: tuple[float, ...]
    backlog: float = 0.0
    per_byte: float = 0.0


@dataclass(frozen=True, slots=True)
class PathChoice:
    """The node of each segment, by number; segments beyond the last are not run."""

    path: tuple[int, ...]
    threshold: float
    reward: float = 0.0


class PathPolicy(Protocol):
    """Chooses a path for the next frame. The frame is captured at node 0. ``links[a][b]`` leads
    from node a to node b."""

    name: str

    def choose(
        self,
        network: PathNetwork,
        nodes: Sequence[PathNode],
        links: Sequence[Sequence[LinkState]],
        fps: float,
        deadline: float,
    ) -> PathChoice: ...


def transfer(
    network: PathNetwork, segment: int, node: PathNode, link: LinkState
) -> tuple[float, float, float]:
    """What it takes to go on with ``segment`` at ``node``: seconds until it can begin, bytes, and
    seconds of segments that are run anew."""
    by_input = link.seconds(network.input) - link.delay
    anew = sum(node.seconds[:segment])
    if not segment:
        return by_input, network.input, 0.0
    by_features = link.seconds(network.features[segment - 1]) - link.delay
    if by_features <= by_input + anew:
        return by_features, network.features[segment - 1], 0.0
    return by_input + anew, network.input, anew


class Paths:
    """CoDE's choice: all paths, all thresholds."""

    name = "paths"

    def choose(
        self,
        network: PathNetwork,
        nodes: Sequence[PathNode],
        links: Sequence[Sequence[LinkState]],
        fps: float,
        deadline: float,
    ) -> PathChoice:
        if network.exits > MOST_SEGMENTS or len(nodes) > MOST_NODES:
            raise ValueError(
                f"paths are enumerated for {MOST_SEGMENTS} segments, {MOST_NODES} nodes"
            )
        found = []
        for path in product(range(len(nodes)), repeat=network.exits):
            reached, _ = reach(network, nodes, links, path, deadline)
            if reached < 0:
                continue
            for table in network.tables:
                load, joules = _loads(network, nodes, links, path[: reached + 1], table)
                kept = min(1.0, 1 / (fps * load)) if load else 1.0
                reward = table.accuracy[reached] * kept
                found.append((joules, PathChoice(path[: reached + 1], table.threshold, reward)))
        if not found:
            return PathChoice((), network.tables[-1].threshold)
        most = max(choice.reward for _, choice in found)
        good = [each for each in found if each[1].reward >= most - EQUAL]
        return min(good, key=lambda each: (each[0], -each[1].reward))[1]


def reach(
    network: PathNetwork,
    nodes: Sequence[PathNode],
    links: Sequence[Sequence[LinkState]],
    path: Sequence[int],
    deadline: float,
) -> tuple[int, float]:
    """The deepest exit of ``path`` whose answer is back at node 0 in time, and its seconds."""
    now, here, reached, took = 0.0, 0, -1, 0.0
    waited: set[int] = set()
    for segment, node in enumerate(path):
        if node != here:
            seconds, _, _ = transfer(network, segment, nodes[node], links[here][node])
            now, here = now + seconds, node
        if node not in waited:
            now = max(now, nodes[node].backlog)
            waited.add(node)
        now += nodes[node].seconds[segment]
        back = now + (links[node][0].delay if node else 0.0)
        if back > deadline:
            break
        reached, took = segment, back
    return reached, took


def _loads(
    network: PathNetwork,
    nodes: Sequence[PathNode],
    links: Sequence[Sequence[LinkState]],
    path: Sequence[int],
    table: ExitTable,
) -> tuple[float, float]:
    """Seconds a frame of the slowest node or link of ``path``, and the joules of all nodes."""
    seconds = [0.0] * len(nodes)
    slowest_link, joules, here = 0.0, 0.0, 0
    for segment, node in enumerate(path):
        share = table.reaches[segment]
        if node != here:
            link = links[here][node]
            _, payload, anew = transfer(network, segment, nodes[node], link)
            slowest_link = max(slowest_link, share * payload / link.bandwidth)
            seconds[node] += share * anew
            joules += share * (payload * nodes[here].per_byte)
            here = node
        seconds[node] += share * nodes[node].seconds[segment]
        joules += share * nodes[node].joules[segment]
    return max(slowest_link, *seconds), joules


class AllAt:
    """Everything at one node: ``local`` (0), or ``remote`` (1)."""

    def __init__(self, node: int, threshold: float) -> None:
        self.name = "remote" if node else "local"
        self._node, self._threshold = node, threshold

    def choose(
        self,
        network: PathNetwork,
        nodes: Sequence[PathNode],
        links: Sequence[Sequence[LinkState]],
        fps: float,
        deadline: float,
    ) -> PathChoice:
        path = (self._node,) * network.exits
        reached, _ = reach(network, nodes, links, path, deadline)
        return PathChoice(path[: max(0, reached) + 1], self._threshold)


class QueueRule:
    """In the manner of MDI-Exit: a segment goes to the other node where the own queue is longer
    than the other's and the way there; the threshold falls as the own queue grows."""

    name = "queues"

    def choose(
        self,
        network: PathNetwork,
        nodes: Sequence[PathNode],
        links: Sequence[Sequence[LinkState]],
        fps: float,
        deadline: float,
    ) -> PathChoice:
        here, path = 0, []
        queue = nodes[0].backlog
        for segment in range(network.exits):
            if not here and len(nodes) > 1:
                seconds, _, _ = transfer(network, segment, nodes[1], links[0][1])
                own = queue + sum(nodes[0].seconds[segment:])
                other = nodes[1].backlog + seconds + sum(nodes[1].seconds[segment:])
                here = int(own > other)
            path.append(here)
            queue += nodes[0].seconds[segment]
        reached, _ = reach(network, nodes, links, path, deadline)
        share = min(1.0, nodes[0].backlog / deadline)
        index = round((1 - share) * (len(network.tables) - 1))
        return PathChoice(tuple(path[: max(0, reached) + 1]), network.tables[index].threshold)


class DelayRule:
    """In the manner of DTO-EE: a share p of the frames is offloaded after the first exit. It
    minimises the mean delay ``1/(1/s_0 − λ) + p·(way + 1/(1/s_1 − pλ))`` of M/M/1 queues, s_0 being
    what a frame takes of the board; the threshold minimises ``delay/deadline − accuracy``. The
    share is dealt out frame by frame."""

    name = "delays"
    _GRID = 20

    def __init__(self) -> None:
        self._owed = 0.0

    def choose(
        self,
        network: PathNetwork,
        nodes: Sequence[PathNode],
        links: Sequence[Sequence[LinkState]],
        fps: float,
        deadline: float,
    ) -> PathChoice:
        board, other = nodes[0], nodes[1]
        way, _, _ = transfer(network, 1, other, links[0][1])
        best, chosen = inf, (0.0, network.tables[-1].threshold)
        for table in network.tables:
            local = sum(r * s for r, s in zip(table.reaches, board.seconds, strict=True))
            remote = sum(r * s for r, s in zip(table.reaches[1:], other.seconds[1:], strict=True))
            first = board.seconds[0]
            for step in range(self._GRID + 1):
                share = step / self._GRID
                own = share * first + (1 - share) * local
                delay = _queue(own, fps) + share * (way + _queue(remote, share * fps))
                if delay / deadline - table.accuracy[-1] < best:
                    best = delay / deadline - table.accuracy[-1]
                    chosen = share, table.threshold
        self._owed += chosen[0]
        offloaded = self._owed >= 1
        self._owed -= offloaded
        path = (0, *((int(offloaded),) * (network.exits - 1)))
        reached, _ = reach(network, nodes, links, path, deadline)
        return PathChoice(path[: max(0, reached) + 1], chosen[1])


def _queue(seconds: float, rate: float) -> float:
    """Mean time in an M/M/1 queue; infinite where it does not keep up."""
    if not seconds:
        return 0.0
    return 1 / (1 / seconds - rate) if seconds * rate < 1 else inf
