"""Real schedules against what none can beat, on devices that are slow, far away and busy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from delen.core.bounds import Bounds
from delen.profile.profile import HostCosts
from delen.scheduler.policy_guard import InRank
from delen.simulate.bounds.upper_bound import label_blind_bound, upper_bound
from delen.simulate.device import DeviceSettings, SlowSpan
from delen.simulate.model import SimulatedModel
from delen.simulate.run import RunSettings, run
from delen.simulate.trace import Arrival, Trace
from policies.dispatch.published.fifo import Fifo
from policies.dispatch.value import Value

MakeModel = Callable[..., SimulatedModel]

LUCK = 0.02
"""The label-blind bound is an estimate: so much it may be off for the samples of two runs."""


def reached_and_bounds(
    model: SimulatedModel,
    arrivals: Sequence[Arrival],
    device: DeviceSettings,
    policy: Any,
    seed: int = 0,
) -> tuple[float, float, float]:
    """What was reached, the label-blind bound and the upper bound."""
    trace, models = Trace(tuple(arrivals)), {model.name: model}
    done = run(trace, models, policy(), InRank(), RunSettings(device, seed=seed))
    return (
        float(done.effective.mean()),
        label_blind_bound(trace, models, device, seed),
        upper_bound(trace, models, device, seed),
    )


def test_what_comes_after_a_slow_time_only_for_the_way_is_not_slow(make_model: MakeModel) -> None:
    far = DeviceSettings(slow=(SlowSpan(0.0, 10.0, 1000.0),), network=1.0, noise=False)
    asked = [Arrival(9.1 + 0.02 * n, bounds=Bounds(max_latency=2.5)) for n in range(5)]
    reached, _, bound = reached_and_bounds(make_model(), asked, far, Fifo)
    assert 0.5 < reached <= bound


@pytest.mark.parametrize("seed", (*range(7), 25, 42, 51))
def test_no_schedule_is_above_the_bound(make_model: MakeModel, seed: int) -> None:
    """Effective accuracies are means of several draws of the noise; so much they may be above."""
    random = Random(seed)
    full, slowness = 0.03, random.uniform(1, 20)
    start = random.choice((0.0, random.uniform(0, 30))) * full
    end = start + random.uniform(40, 150) * full
    device = DeviceSettings(
        lanes=random.choice((1, 1, 2)),
        interference=(1.0, 1.3),
        slow=(SlowSpan(start, end, slowness),),
        network=random.choice((0.0, 0.3, 50.0)) * full,
        noise=random.random() < 0.5,
    )
    host = HostCosts(batch=random.choice((0.0, 0.0, 3.0)) * full)
    taken = random.choice((1.0, slowness)) * full + 3 * host.batch
    cap = random.uniform(0.5, 3) * taken + 2 * device.network
    rng = np.random.default_rng(seed)
    times = np.sort(rng.random(random.randint(150, 400)) * end).tolist()
    asked = [Arrival(time, bounds=Bounds(max_latency=cap)) for time in times]
    model = make_model(spread=0.1, growth=random.uniform(0.1, 1.0))
    model = replace(model, profile=replace(model.profile, host=host))
    for policy in (Value, Fifo):
        rounds = [reached_and_bounds(model, asked, device, policy, each) for each in range(2)]
        reached, label_blind, bound = np.mean(rounds, axis=0)
        assert reached <= bound + (0.01 if device.noise else 1e-9)
        assert reached <= label_blind + LUCK
        assert label_blind <= bound + LUCK
