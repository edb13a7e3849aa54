from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
import pytest

from benchmarks.shift import FULL, RULES, STATIC, TUNED, Change, play
from delen.bundle.calibration import Calibration
from delen.profile.profile import Profile
from delen.simulate.model import SimulatedModel
from delen.simulate.profiled_energy import ProfiledEnergy
from policies.exit.bounds import BoundsPolicy
from policies.plan.planner import Planner, PlannerSettings

PHASE = 600


@pytest.fixture
def table(make_calibration: Callable[..., Calibration]) -> Calibration:
    return make_calibration(0.8, 0.9, 0.95, samples=3000)


@pytest.fixture
def model(table: Calibration, make_profile: Callable[..., Profile]) -> SimulatedModel:
    return SimulatedModel(
        name="m",
        profile=make_profile(0.01, 0.01, 0.01),
        energy=ProfiledEnergy(None),
        level=0.99,
        calibration=table,
        planner=Planner(table, PlannerSettings()),
        policy=BoundsPolicy(),
        macs=(1, 2, 3),
        max_batch=8,
    )


@pytest.fixture
def change(table: Calibration) -> Change:
    """The others are sure of what the last exit does not say."""
    parts: list[Any] = [table.confidence, table.correct, table.predictions]
    sure = np.where(table.predictions == table.predictions[:, -1:], 0.3, 0.99).astype(np.float32)
    others = [sure, table.correct, table.predictions]
    pairs = zip(parts, others, strict=True)
    return Change(Calibration(*(np.concatenate(pair) for pair in pairs)), table.samples)


def test_what_differs_is_counted_over_all_images_of_a_phase(change: Change) -> None:
    assert change.disagreement(0, (inf, inf)) == 0.0
    assert change.disagreement(1, (0.9, inf)) == pytest.approx(
        (change.table.predictions[:, 0] != change.table.predictions[:, 2]).mean()
    )


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_answers_every_request(rule: str, model: SimulatedModel, change: Change) -> None:
    log = play(model, change, rule, seed=0, phase=100)
    assert [len(log.latencies[phase]) for phase in range(3)] == [100] * 3


def test_tuned_thresholds_keep_the_budget_that_static_ones_break(
    model: SimulatedModel, change: Change
) -> None:
    static, tuned, full = (play(model, change, rule, 0, PHASE) for rule in (STATIC, TUNED, FULL))
    assert static.within((0, 2)) == tuned.within((0, 2)) == 1.0
    assert static.within((1,)) == 0.0
    assert tuned.within((1,)) > 0.85
    assert 0 < tuned.raised_after < PHASE
    assert full.within((0, 1, 2)) == 1.0
    assert np.mean(static.latencies[0]) < np.mean(full.latencies[0])
