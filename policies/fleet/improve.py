"""Better mappings by local search, where nodes serve several points side by side.

One after the other, clients move to the best place that their node, or another one, can
give them beside the clients that are there (*move*); where that is not enough, another client of
that node steps down for it, if both together gain (*exchange*). Every step raises the value, so the
result is never worse than where it began.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policies.fleet.problem import Place, Problem, by_node

_LEAST_GAIN = 1e-9


class _Search:
    """A feasible mapping that improves, and how many nodes may still be evaluated."""

    def __init__(self, problem: Problem, mapping: Sequence[Place | None], evaluations: int) -> None:
        self._problem = problem
        self.mapping = list(mapping)
        self._served = {n: dict(served) for n, served in by_node(problem, mapping).items()}
        self._evaluations = evaluations

    @property
    def spent(self) -> bool:
        return self._evaluations <= 0

    def _keeps(self, node: int, served: dict[int, int]) -> bool:
        self._evaluations -= 1
        return self._problem.keeps(node, served.items())

    def _places(self, client: int) -> Iterator[tuple[float, int, int]]:
        """Places that would be better for ``client``, with its gain there, the best first."""
        problem = self._problem
        now = problem.gain(client, self.mapping[client]) + _LEAST_GAIN
        found = []
        for node, budgets in enumerate(problem.budgets[client]):
            for point, budget in enumerate(budgets):
                if budget >= 2 * problem.points[node][point].latencies[0]:
                    gain = problem.gain(client, (node, point))
                    if gain > now:
                        found.append((gain, node, point))
        found.sort(reverse=True)
        yield from found

    def move(self, client: int) -> bool:
        for _, node, point in self._places(client):
            if self.spent:
                return False
            if self._keeps(node, {**self._served[node], client: point}):
                self._put(client, (node, point))
                return True
        return False

    def exchange(self, client: int) -> bool:
        """``client`` gets a better place, and one that is there steps down."""
        problem = self._problem
        now = problem.gain(client, self.mapping[client])
        for there, node, point in self._places(client):
            gain = there - now
            for other, held in list(self._served[node].items()):
                if other == client:
                    continue
                for lower in range(held - 1, -1, -1):
                    place = node, lower
                    loss = problem.gain(other, (node, held)) - problem.gain(other, place)
                    if self.spent:
                        return False
                    if loss >= gain - _LEAST_GAIN or problem.budgets[other][node][lower] <= 0:
                        continue
                    if self._keeps(node, {**self._served[node], other: lower, client: point}):
                        self._put(other, place)
                        self._put(client, (node, point))
                        return True
        return False

    def _put(self, client: int, place: Place) -> None:
        held = self.mapping[client]
        if held is not None:
            del self._served[held[0]][client]
        self._served[place[0]][client] = place[1]
        self.mapping[client] = place


def improve(
    problem: Problem, mapping: Sequence[Place | None], evaluations: int
) -> list[Place | None]:
    """``mapping``, which must be feasible, or a better one, after at most ``evaluations`` of a
    node."""
    search = _Search(problem, mapping, evaluations)
    clients = range(len(problem.clients))
    moved = True
    while moved and not search.spent:
        worst_first = sorted(clients, key=lambda c: problem.gain(c, search.mapping[c]))
        moved = sum(search.move(client) for client in worst_first) > 0
        if not moved:
            moved = any(search.exchange(client) for client in worst_first)
    return search.mapping
