"""Models of several input sizes on a simulated device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds
from delen.errors import ProfileError
from delen.profile.profile import Profile
from delen.profile.reader import load_profile
from delen.simulate.arrivals import Poisson
from delen.simulate.bounds.upper_bound import upper_bound
from delen.simulate.device import DeviceSettings
from delen.simulate.load import of_profile
from delen.simulate.model import SimulatedModel
from delen.simulate.outcome import Fate, Outcomes
from delen.simulate.profiled_energy import ProfiledEnergy
from delen.simulate.run import RunSettings, run
from delen.simulate.trace import Arrival, Trace
from policies.dispatch.value import Value
from policies.exit.bounds import BoundsPolicy
from policies.plan.planner import Planner, PlannerSettings

SECONDS = {(32, 32): 0.010, (16, 16): 0.003}
ACCURACIES = {(32, 32): (0.6, 0.75, 0.85), (16, 16): (0.5, 0.62, 0.7)}


@pytest.fixture
def sized(
    make_profile: Callable[..., Profile], make_calibration: Callable[..., Calibration]
) -> SimulatedModel:
    """Exits after 10, 20 and 30 ms, or at a quarter of the pixels 3, 6 and 9."""
    smaller: tuple[SimulatedModel, ...] = ()
    for size in sorted(SECONDS):
        name = f"m@{size[0]}x{size[1]}"
        table = make_calibration(*ACCURACIES[size], samples=2000)
        model = SimulatedModel(
            name=name,
            profile=make_profile(*(SECONDS[size],) * 3, growth=1.0, model=name),
            energy=ProfiledEnergy(None),
            level=0.99,
            calibration=table,
            planner=Planner(table, PlannerSettings(), size=size, sizes=2),
            policy=BoundsPolicy(),
            macs=(1, 2, 3),
            max_batch=8,
            smaller=smaller,
        )
        smaller = (model,)
    return smaller[0]


def play(model: SimulatedModel, trace: Trace) -> Outcomes:
    return run(trace, {"m": model}, Value(), Value(), RunSettings(DeviceSettings(noise=False)))


def burst(rate: float, cap: float) -> Trace:
    times = Poisson(rate).times(20.0, np.random.default_rng(3)).tolist()
    return Trace(tuple(Arrival(time, bounds=Bounds(max_latency=cap)) for time in times))


def test_a_bound_too_tight_for_the_large_size_is_kept_by_the_small_one(
    sized: SimulatedModel,
) -> None:
    tight = Trace((Arrival(0.0, bounds=Bounds(max_latency=0.0095)),))
    done = play(sized, tight)
    assert (done.fate.tolist(), done.exit.tolist()) == ([Fate.ANSWERED], [2])
    assert done.latency == pytest.approx([0.009])
    refused = play(replace(sized, smaller=()), tight)
    assert refused.fate.tolist() == [Fate.INFEASIBLE]


def test_under_overload_several_sizes_answer_more_rightly_than_one(
    sized: SimulatedModel,
) -> None:
    trace = burst(110.0, 0.06)
    one, several = play(replace(sized, smaller=()), trace), play(sized, trace)

    def effective(done: Outcomes) -> float:
        kept = (done.fate == Fate.ANSWERED) & ~done.missed
        return float((kept * done.correct).sum()) / len(done)

    assert effective(several) > effective(one)
    device = DeviceSettings(noise=False)
    bound = upper_bound(trace, {"m": sized}, device, 0)
    assert effective(several) <= bound
    assert bound > upper_bound(trace, {"m": replace(sized, smaller=())}, device, 0)


def test_with_time_enough_all_run_at_the_large_size(sized: SimulatedModel) -> None:
    trace = Trace(tuple(Arrival(float(n), bounds=Bounds(max_latency=0.5)) for n in range(400)))
    done = play(sized, trace)
    assert done.latency == pytest.approx(np.full(400, 0.03))
    assert done.correct.mean() == pytest.approx(0.85, abs=0.05)


def test_a_profile_of_several_sizes_is_read_back_and_played(
    sized: SimulatedModel, tmp_path: Path
) -> None:
    profiles = [
        replace(each.profile, accuracies=ACCURACIES[each.planner.size or (0, 0)])
        for each in sized.sizes
    ]
    whole = replace(profiles[0], smaller=tuple(profiles[1:]))
    file = tmp_path / "device.json"
    file.write_text(whole.to_json())
    assert load_profile(file) == whole
    model = of_profile(whole, PlannerSettings(), BoundsPolicy(), 0.99, seed=0)
    assert [each.planner.size for each in model.sizes] == [(32, 32), (16, 16)]
    unnamed = replace(whole, smaller=(replace(profiles[1], model="other"),))
    with pytest.raises(ProfileError, match="24x24"):
        of_profile(unnamed, PlannerSettings(), BoundsPolicy(), 0.99, seed=0)
