"""ASET (Castellano et al., INFOCOM 2023, arXiv 2301.13618): a learner that picks a static policy.

Once an interval a Q network sees the state of the fleet and picks which of ASET's static policies
(``policies/fleet/static.py``) routes until the next: ``argmax_a Q(s, a)``, Q trained by deep
Q-learning in the simulator. The paper's reward is the share served within its quality of service;
here it is the effective accuracy of the interval, in which a late or missing answer counts as 0.

The network is ``Q = W₂·relu(W₁·relu(W₀·s + b₀) + b₁) + b₂``; its weights are in
``aset_weights.py``, a module such as ``delen train-policy`` writes.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence

import numpy as np

from policies.fleet.api import Demand, Directive, Route, Standing
from policies.fleet.aset_weights import WEIGHTS
from policies.fleet.freshness import fresh
from policies.fleet.static import STATIC
from policies.learnt import Floats, Network, network_shapes

FEATURES = 11
HIDDEN = 24
SHAPES = network_shapes(FEATURES, HIDDEN, len(STATIC))


class QNetwork(Network):
    """The value of each static policy."""

    def __init__(self, weights: Sequence[Floats]) -> None:
        super().__init__(weights, SHAPES)

    @classmethod
    def from_text(cls, text: str) -> QNetwork:
        """From ``to_text``."""
        values = np.frombuffer(b64decode(text), "<f4").astype(np.float64)
        sizes = [int(np.prod(shape)) for shape in SHAPES]
        parts = np.split(values, np.cumsum(sizes)[:-1])
        return cls([part.reshape(shape) for part, shape in zip(parts, SHAPES, strict=True)])

    def to_text(self) -> str:
        values = np.concatenate([each.ravel() for each in self.weights])
        return b64encode(values.astype("<f4").tobytes()).decode()


def features(standings: Sequence[Standing], demands: Sequence[Demand]) -> Floats:
    """The state: how large, loaded, far and dear nodes are, and what is asked of them."""
    if not standings:
        return np.zeros(FEATURES)
    power = np.array([_power(standing) for standing in standings])
    share = power / power.sum()
    used = np.array([min(standing.utilisation, 1.5) for standing in standings])
    backlog = np.array([min(standing.backlog, 1.0) for standing in standings])
    prices = np.array([standing.price for standing in standings])
    delays = [
        [demand.links[each.node].delay for each in standings if each.node in demand.links]
        for demand in demands
    ]
    near = np.mean([min(each) for each in delays if each] or [0.0])
    largest, cheapest = standings[int(share.argmax())].node, int(prices.argmin())
    to_largest = np.mean([d.links[largest].delay for d in demands if largest in d.links] or [0.0])
    asked = sum(demand.fps for demand in demands) / power.sum()
    return np.array(
        [
            len(standings) / 8,
            share.max(),
            share[cheapest],
            used.mean(),
            used.max(),
            used[cheapest],
            10 * backlog.max(),
            10 * backlog[cheapest],
            30 * near,
            30 * to_largest,
            min(asked, 3.0),
        ]
    )


def _power(standing: Standing) -> float:
    """Deepest answers a second, over all its models."""
    seconds = [max(point.latency for point in model.points) for model in standing.models]
    return 1 / (standing.slowdown * sum(seconds) / len(seconds))


class Aset:
    """``chosen`` is the number of the static policy that routes at present."""

    name = "aset"

    def __init__(self, network: QNetwork | None = None) -> None:
        self._network = network or QNetwork.from_text(WEIGHTS)
        self._policies = [policy() for policy in STATIC]
        self.chosen = 0

    def coordinate(
        self, standings: Sequence[Standing], demands: Sequence[Demand], now: float
    ) -> Sequence[Directive]:
        self.chosen = self.choose(features(fresh(standings, now), demands))
        return ()

    def choose(self, state: Floats) -> int:
        return int(self._network.values(state).argmax())

    def route(self, request: Demand, standings: Sequence[Standing], now: float) -> Route | None:
        return self._policies[self.chosen].route(request, standings, now)
