"""The energy of apps over restarts of a daemon, ordinary ones and power cuts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tests.builders.daemon import Api, Daemon, Launcher

Image8 = NDArray[np.uint8]
Metric = Callable[..., float]
COUNTER = "delen_energy_joules_total"


@pytest.fixture(scope="module")
def own(own_state: Callable[[], Path]) -> Path:
    return own_state()


@pytest.fixture
def start(launcher: Launcher, own: Path) -> Callable[[], Daemon]:
    return lambda: launcher.start({"state": {"path": str(own)}, "power": {"source": "model"}})


def watt_hours(api: Api, app: str) -> float:
    days: Any = api.get("/v1/tenants").json()["tenants"][app]["days"]
    return sum(float(day["attributed_wh"] + day["estimated_wh"]) for day in days)


def test_counters_and_days_go_on_after_a_restart_and_never_fall(
    start: Callable[[], Daemon], image: Image8, metric: Metric, until: Callable[..., Any]
) -> None:
    daemon = start()
    assert daemon.api.raw(image, tenant="camera").status == 200
    until(lambda: metric(daemon.api, COUNTER, tenant="camera"), "its joules")
    for _ in range(5):
        daemon.api.raw(image, tenant="camera")
    joules = 3600 * watt_hours(daemon.api, "camera")
    assert daemon.terminate() == 0

    daemon = start()
    kept = metric(daemon.api, COUNTER, tenant="camera")
    assert kept == pytest.approx(joules)
    assert 3600 * watt_hours(daemon.api, "camera") == pytest.approx(joules)
    daemon.api.raw(image, tenant="camera")
    shown = metric(daemon.api, COUNTER, tenant="camera")
    daemon.process.kill()
    daemon.process.wait()

    daemon = start()
    assert metric(daemon.api, COUNTER, tenant="camera") >= shown
    assert daemon.terminate() == 0


def test_a_clock_that_started_in_1970_again_leaves_the_days_as_they_were(
    start: Callable[[], Daemon], own: Path, image: Image8
) -> None:
    """Days that are all after the daemon's today, as they are for a clock that is not set."""
    file = own / "energy.json"
    kept = {"attributed_j": 3600.0, "estimated_j": 0.0}
    days = {f"2090-01-{day:02d}": {"camera": kept} for day in range(1, 31)}
    document = {"format": "delen-energy", "schema": 1, "totals": [], "days": days}
    file.write_text(json.dumps(document))
    daemon = start()
    daemon.api.raw(image, tenant="camera")
    assert watt_hours(daemon.api, "camera") == pytest.approx(30.0, abs=0.1)
    assert daemon.terminate() == 0
    after = json.loads(file.read_text())
    assert {day: after["days"][day] for day in days} == days
    assert len(after["days"]) == 31
