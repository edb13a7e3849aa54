from __future__ import annotations

import numpy as np

from delen.simulate.learning.sac import Seen, SoftActorCritic, probabilities
from policies.learnt import network_shapes

SHAPES = network_shapes(3, 8, 4)


def _seen(rng: np.random.Generator) -> Seen:
    """Action 2 pays where it is possible, action 1 elsewhere."""
    states = rng.normal(size=(500, 3))
    possible = np.ones((500, 4), bool)
    possible[:, 2] = states[:, 0] > 0
    actions = np.array([rng.choice(np.flatnonzero(row)) for row in possible])
    rewards = 2.0 * (actions == 2) + (actions == 1)
    return Seen(states, possible, actions, rewards, states, possible)


def test_it_learns_the_action_that_pays_among_those_possible() -> None:
    learner = SoftActorCritic(SHAPES, np.random.default_rng(0))
    seen = _seen(np.random.default_rng(1))
    learner.update(seen, 250, 0.05)
    share, _ = probabilities(learner.actor.layers(seen.states)[2], seen.possible)
    wanted = np.where(seen.possible[:, 2], 2, 1)
    assert (share.argmax(axis=1) == wanted).mean() > 0.9
    assert not share[~seen.possible].any()


def test_more_chance_is_kept_where_more_is_asked_for() -> None:
    kept = []
    for entropy in (0.05, 0.9):
        learner = SoftActorCritic(SHAPES, np.random.default_rng(0))
        seen = _seen(np.random.default_rng(1))
        learner.update(seen, 150, entropy)
        share, logarithms = probabilities(learner.actor.layers(seen.states)[2], seen.possible)
        kept.append(-(share * logarithms).sum(axis=1).mean())
    assert kept[0] < kept[1]
