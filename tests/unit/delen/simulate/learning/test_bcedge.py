from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.bcedge import DEVICES, simulated, trace_of
from delen.errors import ConfigError
from delen.scheduler.policy_guard import InRank
from delen.simulate.device import DeviceSettings
from delen.simulate.learning import bcedge
from delen.simulate.learning.bcedge import BCEdgeTraining, highest_rate, utility, whole_seconds
from delen.simulate.model import SimulatedModel
from delen.simulate.run import RunSettings, run
from delen.simulate.trace import Trace
from policies.dispatch.published.bcedge import BCEdge
from policies.plugins import make_dispatch


@pytest.fixture(scope="module")
def models() -> list[SimulatedModel]:
    return [simulated(profile) for profile in DEVICES.values()]


@pytest.fixture(autouse=True)
def short_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bcedge, "REQUESTS", 60)
    monkeypatch.setattr(bcedge, "UPDATES", 5)


def _finished(training: BCEdgeTraining, folder: Path) -> bytes:
    while not training.is_done:
        training.step()
    training.write(folder / "learnt.py")
    return (folder / "learnt.py").read_bytes()


def test_equal_seeds_give_equal_weights_also_after_a_cut(
    models: list[SimulatedModel], tmp_path: Path
) -> None:
    first, begun = BCEdgeTraining(models, 3), BCEdgeTraining(models, 3)
    begun.step()
    begun.save(tmp_path / "kept.npz")
    again = BCEdgeTraining(models, 3)
    again.restore(tmp_path / "kept.npz")
    text = _finished(first, tmp_path)
    assert _finished(again, tmp_path) == text
    assert again.curve == first.curve
    assert (first.learnt.low <= first.learnt.high).all()
    with pytest.raises(ConfigError, match="other profiles"):
        BCEdgeTraining(models[:1], 3).restore(tmp_path / "kept.npz")
    with pytest.raises(ConfigError, match="seed"):
        BCEdgeTraining(models, 3, seed=1).restore(tmp_path / "kept.npz")


def test_what_was_written_is_a_policy(models: list[SimulatedModel], tmp_path: Path) -> None:
    training = BCEdgeTraining(models[:1], 1)
    training.step()
    training.write(tmp_path / "learnt.npz")
    policy = make_dispatch(f"bcedge:{tmp_path / 'learnt.npz'}")
    assert isinstance(policy, BCEdge)


def _trace(model: SimulatedModel, load: float) -> tuple[Trace, float]:
    within = 15 * whole_seconds(model)
    return trace_of(load * highest_rate(model, DeviceSettings()), within, seed=1), within


def test_utility_rises_with_throughput_and_falls_with_latency(
    models: list[SimulatedModel],
) -> None:
    model = models[0]
    trace, within = _trace(model, 0.3)
    settings = RunSettings(seed=1)
    outcomes = run(trace, {model.name: model}, make_dispatch("fifo"), InRank(), settings)
    found = utility(outcomes, within)
    assert found == pytest.approx(
        np.log(
            outcomes.answered.sum() / np.ptp(outcomes.arrived) * within / outcomes.latency.mean()
        )
    )
    outcomes.latency[:] *= 2
    assert utility(outcomes, within) == pytest.approx(found - np.log(2))
    outcomes.missed_latency[:] = True
    assert utility(outcomes, within) == 0.0


def test_a_policy_far_from_its_training_is_contained(
    models: list[SimulatedModel], tmp_path: Path
) -> None:
    """One that knows only one load meets another: the default decides, and it is counted."""
    training = BCEdgeTraining(models[:1], 1)
    training.step()
    arrays = training.learnt.to_arrays()
    policy = BCEdge({**arrays, "high": arrays["low"]})
    trace, _ = _trace(models[1], 0.5)
    settings = RunSettings(seed=1)
    outcomes = run(trace, {models[1].name: models[1]}, policy, make_dispatch("edf"), settings)
    assert outcomes.policy_failures > 5
    assert len(outcomes.failures) == 1 and "OutsideTraining" in outcomes.failures[0]
    assert outcomes.answered.mean() > 0.9
