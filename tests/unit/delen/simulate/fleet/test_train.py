from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from delen.errors import ConfigError
from delen.simulate.fleet.learner import Learner, Replay
from delen.simulate.fleet.train import AsetTraining
from policies.fleet.aset import FEATURES
from policies.fleet.static import STATIC
from tests.builders.site import site


def _trained(seed: int = 0, episodes: int = 4) -> AsetTraining:
    return AsetTraining([site(seconds=4.0), site(clients=3, seconds=4.0)], episodes, seed)


def _finished(training: AsetTraining) -> str:
    while not training.is_done:
        training.step()
    return training.network.to_text()


def test_learning_moves_a_network_towards_the_action_that_pays() -> None:
    learner, replay = Learner(np.random.default_rng(0)), Replay()
    rng = np.random.default_rng(1)
    for state in rng.normal(size=(400, FEATURES)):
        action = int(rng.integers(len(STATIC)))
        replay.add(state, action, float(action == 3), state)
    learner.update(replay, 800)
    picked = learner.network.layers(np.array(replay.states))[2].argmax(axis=1)
    assert (picked == 3).mean() > 0.9


def test_equal_seeds_give_equal_weights() -> None:
    first, again, other = _trained(), _trained(), _trained(seed=1)
    assert _finished(first) == _finished(again)
    assert first.curve == again.curve
    assert len(first.curve) == 4
    assert first.network.to_text() != _finished(other)


def test_exploration_falls() -> None:
    training = _trained(episodes=10)
    shares = [training.explored(episode) for episode in range(10)]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(0.15)


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_training_that_was_cut_off_ends_as_if_it_was_not(cut: int, tmp_path: Path) -> None:
    file = tmp_path / "kept.npz"
    begun = _trained()
    for _ in range(cut):
        begun.step()
    begun.save(file)
    resumed = _trained()
    resumed.restore(file)
    assert resumed.curve == begun.curve
    assert _finished(resumed) == _finished(_trained())
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_of_another_training_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "kept.npz"
    _trained().save(file)
    with pytest.raises(ConfigError, match=r"kept\.npz.*remove it"):
        _trained(seed=1).restore(file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"kept\.npz.*remove it"):
        _trained().restore(file)


def test_weights_are_written_as_a_module(tmp_path: Path) -> None:
    training = _trained(episodes=1)
    training.step()
    file = tmp_path / "weights.py"
    training.write(file)
    module: dict[str, str] = {}
    exec(file.read_text(), module)
    assert "1 episodes, seed 0" in module["__doc__"]
    assert module["WEIGHTS"] == training.network.to_text()
