from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from delen.bundle.calibration import Calibration
from delen.profile.profile import Profile
from delen.simulate.model import SimulatedModel
from delen.simulate.profiled_energy import ProfiledEnergy
from policies.exit.bounds import BoundsPolicy
from policies.plan.planner import Planner, PlannerSettings


@pytest.fixture
def make_model(
    make_profile: Callable[..., Profile], make_calibration: Callable[..., Calibration]
) -> Callable[..., SimulatedModel]:
    """A model ``m`` with exits after 10, 20 and 30 ms that are right on 60, 70 and 80 %."""

    def make(name: str = "m", watts: float | None = None, **how: Any) -> SimulatedModel:
        calibration = make_calibration(0.6, 0.7, 0.8, samples=2000)
        return SimulatedModel(
            name=name,
            profile=make_profile(0.01, 0.01, 0.01, **how),
            energy=ProfiledEnergy(watts),
            level=0.99,
            calibration=calibration,
            planner=Planner(calibration, PlannerSettings()),
            policy=BoundsPolicy(),
            macs=(1, 2, 3),
            max_batch=8,
        )

    return make
