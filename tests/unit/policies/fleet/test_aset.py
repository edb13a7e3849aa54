from __future__ import annotations

import numpy as np
import pytest

from policies.fleet.api import LinkState
from policies.fleet.aset import FEATURES, SHAPES, Aset, QNetwork, features
from policies.fleet.static import STATIC
from tests.builders.fleet import demand, standing

NEAR, FAR = LinkState(delay=1e-3), LinkState(delay=20e-3)


def _prefers(action: int) -> QNetwork:
    """A network that picks ``action`` in every state."""
    weights = [np.zeros(shape) for shape in SHAPES]
    weights[-1][action] = 1.0
    return QNetwork(weights)


@pytest.mark.parametrize("action", range(len(STATIC)))
def test_it_routes_as_the_static_policy_that_it_picks(action: int) -> None:
    nodes = [
        standing("near", backlog=0.05, utilisation=0.9, price=3.0),
        standing("far", utilisation=0.1, price=1.0),
    ]
    asked = demand("a", near=NEAR, far=FAR)
    learner = Aset(_prefers(action))
    assert learner.coordinate(nodes, [asked], 0.0) == ()
    assert STATIC[learner.chosen] is STATIC[action]
    assert learner.route(asked, nodes, 0.0) == STATIC[action]().route(asked, nodes, 0.0)


def test_the_state_tells_loads_sizes_and_distances_apart() -> None:
    asked = [demand("a", near=NEAR, far=FAR)]
    calm = features([standing("near"), standing("far")], asked)
    assert calm.shape == (FEATURES,)
    for other in (
        features([standing("near", utilisation=0.9), standing("far")], asked),
        features([standing("near", slowdown=4.0), standing("far")], asked),
        features([standing("near", backlog=0.2), standing("far")], asked),
        features([standing("near"), standing("far")], [demand("a", near=FAR, far=FAR)]),
        features([standing("near"), standing("far")], [demand("a", 30.0, near=NEAR, far=FAR)]),
    ):
        assert not np.allclose(calm, other)
    assert np.isfinite(features([standing("near")], [])).all()
    assert features([], asked).tolist() == [0.0] * FEATURES


def test_weights_are_kept_as_text() -> None:
    rng = np.random.default_rng(0)
    network = QNetwork([rng.normal(size=shape) for shape in SHAPES])
    state = rng.normal(size=FEATURES)
    again = QNetwork.from_text(network.to_text())
    assert again.values(state) == pytest.approx(network.values(state), abs=1e-5)
    with pytest.raises(ValueError, match="shapes"):
        QNetwork([np.zeros(1)])


def test_the_shipped_learner_leaves_a_full_board_for_an_empty_machine() -> None:
    nodes = [
        standing("near", utilisation=1.0, backlog=0.5, slowdown=4.0, price=3.0),
        standing("far", utilisation=0.1, price=1.0),
    ]
    asked = [demand(f"c{n}", near=NEAR, far=FAR) for n in range(8)]
    learner = Aset()
    learner.coordinate(nodes, asked, 0.0)
    routes = [learner.route(each, nodes, 0.0) for each in asked]
    assert sum(route is not None and route.node == "far" for route in routes) > 4
