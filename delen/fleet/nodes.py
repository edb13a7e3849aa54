"""What the hub learns of its nodes, call by call."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from delen.daemon.node_caller import Heard
from delen.fleet.config import NodeSettings
from delen.fleet.view import MOST_MISSES, FleetView, NodeView

log = logging.getLogger("delen.fleet")


class Nodes:
    """The nodes as the hub knows them. Of one thread; what others read are its views."""

    def __init__(self, settings: Sequence[NodeSettings], period: float) -> None:
        self._nodes = {each.name: NodeView(each.name, each.url) for each in settings}
        self._refused = dict[str, str]()
        self._period = period

    def heard(self, name: str, heard: Heard, asked: float) -> None:
        """What came of a call that asked for the standing at ``asked``, by the hub's clock."""
        node = self._nodes[name]
        if heard.standing is not None:
            if node.misses:
                log.info("node %s answers again", name)
            standing = replace(heard.standing, said=asked)
            self._nodes[name] = NodeView(name, node.url, standing, 0, self._refused.get(name))
        else:
            misses = MOST_MISSES if heard.lasts else node.misses + 1
            self._miss(node, heard.problem or "it did not answer", misses)

    def failed(self, name: str, problem: str) -> None:
        """The call ended without the node's doing: what it said holds for as long as it is new."""
        self._nodes[name] = replace(self._nodes[name], problem=problem)

    def told(self, name: str, problem: str | None) -> None:
        """What came of directives: a node that refuses them still answers requests."""
        if problem is None:
            self._refused.pop(name, None)
            return
        problem = f"it does not obey directives: {problem}"
        if self._refused.get(name) != problem:
            log.warning("node %s: %s", name, problem)
        self._refused[name] = problem
        node = self._nodes[name]
        if not node.misses:
            self._nodes[name] = replace(node, problem=problem)

    def view(self, now: float) -> FleetView:
        return FleetView(list(self._nodes.values()), now, self._period)

    def _miss(self, node: NodeView, problem: str, misses: int) -> None:
        if node.misses < MOST_MISSES <= misses:
            log.warning("node %s is down: %s", node.name, problem)
        self._nodes[node.name] = replace(node, problem=problem, misses=misses)
