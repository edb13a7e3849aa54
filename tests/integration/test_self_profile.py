"""A daemon's runtime that measures energies by itself, over a sensor's files."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.core.bounds import Bounds, Options
from delen.core.energy_status import PowerChanges
from delen.daemon.build_runtime import Opened, open_runtime
from delen.daemon.config import config_of
from delen.daemon.in_process import _Silent
from delen.measure.disturbance import SpareLane
from power.metering.blocks import BlockPlan
from tests.sensors import make_tree, play

IDLE, BUSY = 6.0, 10.0
PATIENCE = 300.0


def until(holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
    return found


@pytest.fixture
def bundle(write_bundle: Callable[..., Path], tmp_path: Path, brief_profile: None) -> Path:
    return write_bundle(tmp_path / "tiny", exits=2, max_batch=1)


@pytest.fixture
def opened_on(bundle: Path, tmp_path: Path) -> Callable[..., Opened]:
    def opened_on(**settings: Any) -> Opened:
        config = config_of(
            {
                "power.root": str(tmp_path / "root"),
                "state.path": str(tmp_path / "state"),
                "device.threads": 1,
                **{name.replace("__", "."): value for name, value in settings.items()},
            }
        )
        return open_runtime(config, _Silent(), lambda: [bundle])

    return opened_on


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime without requests is looked at at once, blocks are short, and nothing else runs."""
    module = "delen.daemon.idle_profiler."
    monkeypatch.setattr(module + "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(module + "_IDLE_SECONDS", 0.0)
    monkeypatch.setattr(module + "_ENERGY_IDLE_SECONDS", 0.0)
    monkeypatch.setattr("power.metering.blocks.LEAST_BLOCKS", 4)
    monkeypatch.setattr("power.metering.blocks.MOST_SPREAD", 9.0)
    monkeypatch.setattr("power.metering.blocks.LEAST_SECONDS", 1.0)
    monkeypatch.setattr("power.metering.blocks.margin", lambda interval: 0.2)
    monkeypatch.setattr("power.metering.block_energy.margin", lambda interval: 0.2)
    monkeypatch.setattr("power.metering.block_energy._LEAST_LEFT", 0.3)
    monkeypatch.setattr(module + "_ENERGY_PLAN", BlockPlan(rounds=4, seconds=1.0, spread=9.0))
    monkeypatch.setattr("delen.measure.disturbance._busy_seconds", lambda file: 0.0)


@pytest.mark.usefixtures("hurried")
def test_energies_are_measured_while_nothing_is_requested_and_give_way(
    opened_on: Callable[..., Opened],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tree, ran = make_tree(tmp_path / "root", "orin-nx", {"VDD_IN": IDLE}), [0.0]
    run = SpareLane.run

    def noted(*how: Any) -> Any:
        time.sleep(0.005)  # as long on a busy machine as on a calm one, more or less
        ran[0] = time.monotonic()
        return run(*how)

    def watts(elapsed: float) -> dict[str, float]:
        is_busy = time.monotonic() - ran[0] < 0.05
        return tree.spread((BUSY if is_busy else IDLE) + 0.02 * (int(50 * elapsed) % 2))

    monkeypatch.setattr(SpareLane, "run", noted)
    with play(tree, watts), caplog.at_level(logging.INFO, "delen"):
        opened = opened_on(energy__self_profile=True)
        try:
            model = opened.load("tiny")
            opened.profiler.start()
            until(lambda: "measuring its energies by ina3221" in caplog.text)
            image = np.zeros((4, 4, 1), np.uint8)
            job = opened.runtime.submit("tiny", image, Bounds(), Options())
            assert job.future.result(PATIENCE).receipt.energy.source == "model"
            until(lambda: "its energies are measured another time" in caplog.text)
            energy = until(lambda: model.costs.profile.energy)
            assert (energy.source, energy.scope) == ("ina3221", "module_input")
            assert energy.idle_watts == pytest.approx(IDLE, rel=0.1)
            until(lambda: "its profile has energies now, by ina3221" in caplog.text)
            job = opened.runtime.submit("tiny", image, Bounds(), Options())
            assert job.future.result(PATIENCE).receipt.energy.source == "profile"
        finally:
            opened.close()
        [file] = (tmp_path / "state" / "profiles").rglob("*.json")
        assert json.loads(file.read_text())["energy"]["source"] == "ina3221"
        again = opened_on()
        try:
            assert again.load("tiny").costs.profile.energy is not None
        finally:
            again.close()


@pytest.mark.usefixtures("hurried")
def test_a_limit_that_is_set_meanwhile_ends_the_measurement(
    opened_on: Callable[..., Opened], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_tree(tmp_path / "root", "orin-nx")
    with caplog.at_level(logging.INFO, "delen"):
        opened = opened_on(energy__self_profile=True)
        try:
            model = opened.load("tiny")
            opened.profiler.start()
            until(lambda: "measuring its energies" in caplog.text)
            opened.energy.set_limits(PowerChanges(watt_cap=30.0))
            until(lambda: "its energies are measured another time" in caplog.text)
            time.sleep(0.3)
            assert caplog.text.count("measuring its energies") == 1, "the limit still stands"
            assert model.costs.profile.energy is None
        finally:
            opened.close()


@pytest.mark.usefixtures("hurried")
def test_a_model_that_is_not_whole_in_memory_is_measured_once_it_is(
    opened_on: Callable[..., Opened],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_tree(tmp_path / "root", "orin-nx")
    with caplog.at_level(logging.INFO, "delen"):
        opened = opened_on(energy__self_profile=True)
        try:
            residency, missed = type(opened.load("tiny").residency), list[int]()
            with monkeypatch.context() as absent:
                absent.setattr(residency, "lease_resident", lambda *_: missed.append(1))
                opened.profiler.start()
                until(lambda: len(missed) > 5)
                assert "its energies" not in caplog.text
            until(lambda: "measuring its energies by ina3221" in caplog.text)
        finally:
            opened.close()


def test_energies_are_measured_by_a_sensor_that_is_free_alone(
    opened_on: Callable[..., Opened], tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "root", "orin-nx")
    opened = opened_on()
    try:
        until(opened.energy.free_meter)
        opened.energy.set_limits(PowerChanges(watt_cap=30.0))
        assert opened.energy.free_meter() is None, "a limit would be in its way"
        opened.energy.set_limits(PowerChanges(watt_cap=None))
        assert opened.energy.free_meter() is not None
        tree.vanish()
        until(lambda: opened.energy.free_meter() is None)
    finally:
        opened.close()
    opened = opened_on(power__source="model")
    try:
        until(lambda: opened.energy.describe().watts is not None)
        assert opened.energy.free_meter() is None, "an estimate is not a measurement"
    finally:
        opened.close()
