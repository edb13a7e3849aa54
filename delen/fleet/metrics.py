"""What the hub counts, for ``GET /metrics``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from delen.wire.fleet import Node, Nodes

_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class HubMetrics:
    """Counts of routes, decisions and failures."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._routes = self._counter("routes", "Routes given", "node")
        self._errors = Counter(
            "delen_errors", "Requests refused or failed", ["code"], registry=self._registry
        )
        self._missed = self._counter("missed_standings", "Standings that did not come", "node")
        self._refused = self._counter("refused_directives", "Directives not obeyed", "node")
        self._failures = self._counter("policy_failures", "Calls that the policy failed", "call")
        self._restarts = self._counter("actor_restarts", "Actors started again", "actor")
        self._decisions = Histogram(
            "delen_fleet_decision_seconds",
            "Of the policy's slow decision",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def _counter(self, name: str, about: str, label: str) -> Counter:
        return Counter(f"delen_fleet_{name}", about, [label], registry=self._registry)

    def routed(self, node: str) -> None:
        self._routes.labels(node).inc()

    def refused(self, code: str) -> None:
        self._errors.labels(code).inc()

    def missed(self, node: str) -> None:
        self._missed.labels(node).inc()

    def disobeyed(self, node: str) -> None:
        self._refused.labels(node).inc()

    def policy_failed(self, call: str) -> None:
        self._failures.labels(call).inc()

    def restarted(self, actor: str) -> None:
        self._restarts.labels(actor).inc()

    def decided(self, seconds: float) -> None:
        self._decisions.observe(seconds)

    def watch(self, nodes: Callable[[], Nodes], clients: Callable[[], int]) -> None:
        """Expose the state of the nodes and the number of clients, too."""
        self._registry.register(_State(nodes, clients))

    def exposition(self) -> bytes:
        return generate_latest(self._registry)


class _State(Collector):
    def __init__(self, nodes: Callable[[], Nodes], clients: Callable[[], int]) -> None:
        self._nodes = nodes
        self._clients = clients

    def collect(self) -> Iterator[Metric]:
        nodes = self._nodes().nodes
        figures: dict[str, tuple[str, Callable[[Node], float | None]]] = {
            "node_up": ("1 while the node answers", lambda node: node.state == "up"),
            "standing_age_seconds": ("Of the last standing", lambda node: node.age),
            "backlog_seconds": ("Work that waits at the node", lambda node: node.backlog),
            "slowdown": ("Of the node, over its profile", lambda node: node.slowdown),
            "utilisation": ("Share of time in which the node ran", lambda node: node.utilisation),
        }
        for name, (about, read) in figures.items():
            gauge = GaugeMetricFamily(f"delen_fleet_{name}", about, labels=["node"])
            for node in nodes:
                if (value := read(node)) is not None:
                    gauge.add_metric([node.name], float(value))
            yield gauge
        yield GaugeMetricFamily("delen_fleet_clients", "Clients known", self._clients())
