"""What the hub knows of its nodes at one moment, and what a client's request means there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from delen.core.bounds import check_name
from delen.daemon.standing import link_state
from delen.errors import BundlesDiffer, InvalidInput, ModelNotFound, NoRoute
from delen.wire import fleet as wire
from delen.wire.message import Milli
from policies.fleet.api import Demand, LinkState, Standing
from policies.fleet.freshness import is_fresh

MOST_MISSES = 2
"""Standings that a node may leave out before it counts as down."""

_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node: its last ``standing``, the ``misses`` since then, and what is wrong with it."""

    name: str
    url: str
    standing: Standing | None = None
    misses: int = 0
    problem: str | None = None

    def state(self, now: float) -> wire.NodeState:
        if self.misses < MOST_MISSES:
            if self.standing is None:
                return "unknown"
            if is_fresh(self.standing, now):
                return "up"
        return "down"

    def may_have(self, model: str) -> bool:
        """Whether the node may serve ``model``, by what it last said."""
        return self.standing is None or self.standing.model(model) is not None

    def describe(self, now: float) -> wire.Node:
        """The node as the hub's clients see it."""
        said = self.standing
        return wire.Node(
            name=self.name,
            url=self.url,
            state=self.state(now),
            age=None if said is None else round(now - said.said, 3),
            problem=self.problem,
            models=() if said is None else tuple(model.name for model in said.models),
            backlog=None if said is None else Milli(said.backlog),
            slowdown=None if said is None else said.slowdown,
            utilisation=None if said is None else said.utilisation,
        )


class FleetView:
    """``nodes`` as they are ``now``. It does not change: whoever reads it needs no lock."""

    def __init__(self, nodes: Sequence[NodeView], now: float, period: float) -> None:
        self.nodes = {node.name: node for node in nodes}
        self._period = period
        self._silent = [node for node in nodes if node.state(now) != "up"]
        self._bundles: dict[str, dict[str, list[str]]] = {}
        up = []
        for node in nodes:
            if node.standing is not None and node.state(now) == "up":
                up.append(node.standing)
                for model in node.standing.models:
                    bundles = self._bundles.setdefault(model.name, {})
                    bundles.setdefault(model.bundle, []).append(node.name)
        self.standings: tuple[Standing, ...] = tuple(up)

    def demand(self, request: wire.RouteRequest) -> Demand:
        """What policies see of ``request``: its links are those to the nodes that have the model in
        one bundle. A link of which nothing is known is taken for as good as the best one that is
        named.

        InvalidInput names what is wrong. ModelNotFound where no node has the model, NoRoute where
        one of those that do not answer may have it, BundlesDiffer where the request does not say
        which of several bundles it is for.
        """
        check_name(request.tenant, "tenant")
        for name in ("client", "model"):
            if not 0 < len(getattr(request, name)) <= _LONGEST_NAME:
                raise InvalidInput(f"{name} must have 1 to {_LONGEST_NAME} characters", name)
        try:
            links = _links(request.links, self._holders(request))
            return Demand(
                "\0".join((request.tenant, request.client, request.model)),
                request.model,
                request.fps,
                request.deadline,
                links,
                request.tenant,
                request.min_accuracy,
            )
        except InvalidInput as error:
            raise error.renamed(request.written(error.field) or error.field) from None

    def no_route(self, request: wire.RouteRequest) -> NoRoute:
        """Why no node answers ``request``, the policy having been asked."""
        asked, deadline = ", ".join(self._holders(request)), f"{1e3 * request.deadline:g} ms"
        sentence = f"none of {asked} answers {request.model!r} within {deadline}{self._silence()}"
        return NoRoute(sentence, self._period)

    def _holders(self, request: wire.RouteRequest) -> Sequence[str]:
        """The nodes that have the bundle that is asked for."""
        bundles = self._bundles.get(request.model, {})
        if request.bundle is not None:
            if (nodes := bundles.get(request.bundle)) is not None:
                return nodes
        elif len(bundles) == 1:
            return next(iter(bundles.values()))
        if bundles:
            found = "; ".join(f"{', '.join(nodes)}: {key}" for key, nodes in bundles.items())
            if request.bundle is None:
                raise BundlesDiffer(
                    f"nodes have different bundles named {request.model!r}; name one as bundle: "
                    f"{found}"
                )
            wanted = f"the bundle {request.bundle!r} of {request.model!r}; there are {found}"
        else:
            known = ", ".join(sorted(self._bundles)) or "none"
            wanted = f"the model {request.model!r}; there are: {known}"
        sentence = f"no node that answers has {wanted}{self._silence()}"
        if any(node.may_have(request.model) for node in self._silent):
            raise NoRoute(sentence, self._period)
        raise ModelNotFound(sentence)

    def _silence(self) -> str:
        names = ", ".join(node.name for node in self._silent)
        return f" (without a standing: {names})" if names else ""


def _links(named: Mapping[str, wire.Link], nodes: Sequence[str]) -> dict[str, LinkState]:
    links = {node: _link(node, link) for node, link in named.items()}
    open_links = [link for link in links.values() if link.bandwidth > 0]
    limits = [link.bandwidth for link in open_links if link.bandwidth < inf]
    best = LinkState(
        max(limits, default=inf), min((link.delay for link in open_links), default=0.0)
    )
    found = {node: links.get(node, best) for node in nodes}
    return {
        node: LinkState(best.bandwidth, link.delay) if link.bandwidth == inf else link
        for node, link in found.items()
    }


def _link(node: str, link: wire.Link) -> LinkState:
    try:
        return link_state(link)
    except InvalidInput as error:
        raise error.renamed(f"links.{node}.{link.written(error.field)}") from None
