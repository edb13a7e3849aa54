"""What a daemon says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from delen.bundle.calibration import Calibration
from delen.bundle.manifest import load_bundle
from delen.core.bounds import Bounds, Options
from delen.engine.energy_admission import UnlimitedEnergy
from delen.engine.model import Model
from delen.engine.runtime import Runtime
from delen.errors import Draining
from delen.profile.cost_model import CostModel
from delen.profile.profile import Quantiles
from tests.builders.engine import build_model, build_runtime
from tests.unit.delen.engine.harness import Clock, Held
from tests.unit.delen.engine.test_admission import SAMPLE, Sure


class Priced(UnlimitedEnergy):
    """A joule costs 0.3 for all, and more for the tenant ``poor``."""

    def price(self, tenant: str) -> float:
        return 5.0 if tenant == "poor" else 0.3


@pytest.fixture
def network() -> Sure:
    return Sure()


@pytest.fixture
def make_model(
    tiny_bundle: Path,
    make_calibration: Callable[..., Calibration],
    make_costs: Callable[..., CostModel],
    network: Sure,
) -> Callable[..., Model]:
    def make(**how: float) -> Model:
        costs = make_costs(0.01, 0.01, 0.02, growth=0.5, **how)
        calibration = make_calibration(0.6, 0.8, 0.9)
        return build_model(tiny_bundle, costs, network=network, calibration=calibration)

    return make


@pytest.fixture
def runtime(tiny_bundle: Path, make_model: Callable[..., Model], clock: Clock) -> Iterator[Runtime]:
    made = build_runtime([tiny_bundle], lambda _: make_model(watts=4.0), energy=Priced())
    yield made
    made.close()


def test_points_are_those_of_the_profile(runtime: Runtime, tiny_bundle: Path) -> None:
    (model,) = runtime.standing().models
    assert (model.name, model.bundle, model.load) == ("tiny", load_bundle(tiny_bundle).digest, 0.0)
    assert [point.exit for point in model.points] == [0, 1, 2]
    assert [point.accuracy for point in model.points] == [0.6, 0.8, 0.9]
    assert [point.latency for point in model.points] == pytest.approx([0.01, 0.02, 0.04])
    assert [point.energy for point in model.points] == pytest.approx([0.04, 0.08, 0.16])
    for point in model.points:
        assert list(point.latencies) == sorted(point.latencies)
        assert point.latencies[1] == pytest.approx(1.5 * point.latency)
        assert (point.payload, point.size) == (SAMPLE.nbytes, None)


def test_energy_is_unknown_where_nobody_measured_it(
    tiny_bundle: Path, make_model: Callable[..., Model]
) -> None:
    runtime = build_runtime([tiny_bundle], lambda _: make_model())
    (model,) = runtime.standing().models
    assert [point.energy for point in model.points] == [None] * 3
    runtime.close()


def test_points_are_made_anew_only_where_the_profile_changes(runtime: Runtime) -> None:
    (first,), (again,) = runtime.standing().models, runtime.standing().models
    assert again.points is first.points
    model = runtime.store.ready("tiny")
    slower = replace(model.costs.profile, answer=Quantiles(0.1, 0.1, 0.1, 0.1))
    model.costs.use(slower, model.costs.energy)
    assert runtime.standing().models[0].points is not first.points


def test_an_unloaded_model_is_described_as_it_was_until_it_is_loaded(runtime: Runtime) -> None:
    (before,) = runtime.standing().models
    runtime.unload("tiny")
    (after,) = runtime.standing().models
    assert after.points is before.points
    assert after.load > 0


def test_what_was_never_loaded_is_left_out(
    tiny_bundle: Path, make_model: Callable[..., Model]
) -> None:
    runtime = build_runtime([tiny_bundle], lambda _: make_model(), loaded=())
    standing = runtime.standing()
    assert (standing.models, standing.backlog, standing.slowdown) == ((), 0.0, 1.0)
    runtime.close()


def test_load_and_price_are_those_of_the_moment(
    runtime: Runtime, network: Sure, clock: Clock
) -> None:
    idle = runtime.standing()
    assert (idle.backlog, idle.utilisation, idle.slowdown) == (0.0, 0.0, 1.0)
    assert idle.price_per_joule == 0.3
    with Held(network, 0) as running:
        futures = [runtime.submit("tiny", SAMPLE, Bounds(), Options()).future]
        running.wait_until_running()
        futures += [runtime.submit("tiny", SAMPLE, Bounds(), Options()).future for _ in range(2)]
        clock.now += 1.0
        busy = runtime.standing()
        assert busy.backlog > 0
        assert busy.utilisation == pytest.approx(1 - np.exp(-0.5))
    for future in futures:
        future.result(60)


def test_a_slow_device_says_so_and_forgets_it_without_being_used(
    runtime: Runtime, clock: Clock
) -> None:
    runtime.standing()
    model = runtime.store.ready("tiny")
    for _ in range(50):
        model.costs.learn(0, 1, 0.03)
    assert runtime.standing().slowdown > 2
    clock.now += 600.0
    assert runtime.standing().slowdown < 1.5


def test_a_daemon_that_drains_has_no_standing(runtime: Runtime) -> None:
    runtime.start_draining()
    with pytest.raises(Draining):
        runtime.standing()
