"""What requests and changes of the device do to each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds, Options
from delen.engine.runtime import Runtime
from delen.profile.cost_model import CostModel
from delen.profile.slowdown import Slowdown
from tests.builders.engine import PATIENCE, build_model, build_runtime
from tests.unit.delen.engine.harness import Clock, FakeNetwork


def fail(segment: int) -> None:
    raise RuntimeError("nothing is to be learnt from it")


@pytest.fixture
def runtime(
    tiny_bundle: Path,
    make_calibration: Callable[..., Calibration],
    make_costs: Callable[..., CostModel],
    clock: Clock,
) -> Iterator[Runtime]:
    network = FakeNetwork(clock)
    network.before = fail
    costs, calibration = make_costs(0.01, 0.01, 0.01), make_calibration(0.6, 0.8, 0.9)
    model = build_model(tiny_bundle, costs, network=network, calibration=calibration)
    runtime = build_runtime([tiny_bundle], lambda _: model)
    yield runtime
    runtime.close()


def preview(runtime: Runtime) -> None:
    runtime.preview("tiny", Bounds())


def submit(runtime: Runtime) -> None:
    sample = np.zeros((4, 4, 1), np.uint8)
    wait([runtime.submit("tiny", sample, Bounds(), Options()).future])


@pytest.mark.parametrize("ask", [preview, submit])
def test_another_power_mode_is_begun_afresh_whoever_asks_meanwhile(
    runtime: Runtime, ask: Callable[[Runtime], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, relaxed = runtime.store.ready("tiny"), Slowdown.relaxed
    costs = model.costs
    ask(runtime)
    costs.learn(0, 1, 0.04)
    assert costs.slowdown != Slowdown()
    change = threading.Thread(
        target=runtime.change, args=(model, lambda _: costs.use(costs.profile, costs.energy))
    )

    def fade(slowdown: Slowdown, elapsed: float) -> Slowdown:
        if change.ident is None:
            change.start()
            change.join(0.2)  # it may be over before what follows, or may have to wait for it
        return relaxed(slowdown, elapsed)

    monkeypatch.setattr(Slowdown, "relaxed", fade)
    ask(runtime)
    change.join(PATIENCE)
    assert costs.slowdown == Slowdown()
