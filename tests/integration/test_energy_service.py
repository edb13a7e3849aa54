"""The engine with its energy accounting over a tree of sensors, without HTTP."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.core.bounds import Bounds, Options
from delen.core.energy_status import UNCHANGED, Battery, Budget, PowerChanges, TenantChanges
from delen.core.result import Result
from delen.core.work import Work
from delen.daemon.build_runtime import Opened, open_runtime
from delen.daemon.config import config_of
from delen.daemon.in_process import _Silent
from delen.energy.service import EnergyService
from delen.errors import BudgetExhausted, ConfigError, PowerError
from power.attribution.attribution import Attributor
from tests.nvpmodel import ModeTree
from tests.sensors import make_tree

PATIENCE = 60.0
IMAGE = np.zeros((4, 4, 1), np.uint8)


def until(holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
    return found


@pytest.fixture
def opening(tiny_bundle: Path, tmp_path: Path, brief_profile: None) -> Callable[..., Any]:
    """Opens an engine of the tiny bundle on the tree under ``tmp_path / "root"``."""

    @contextmanager
    def opening(**settings: Any) -> Iterator[Opened]:
        config = config_of(
            {
                "power.root": str(tmp_path / "root"),
                "state.path": str(tmp_path / "state"),
                "device.threads": 1,
                **{name.replace("__", "."): value for name, value in settings.items()},
            }
        )
        opened = open_runtime(config, _Silent(), lambda: [tiny_bundle])
        try:
            yield opened
        finally:
            opened.close()

    return opening


def infer(opened: Opened, tenant: str = "default") -> Result:
    job = opened.runtime.submit("tiny", IMAGE, Bounds(), Options(tenant=tenant))
    return job.future.result(PATIENCE)


def test_a_mode_that_was_profiled_before_brings_its_profile(
    opening: Callable[..., Any], tmp_path: Path
) -> None:
    make_tree(tmp_path / "root", "orin-nx")
    modes = ModeTree(tmp_path / "root", mode=1)
    with opening() as opened:
        fast = opened.runtime.load("tiny").costs.profile.device
    modes.set(2)
    with opening() as opened:
        costs = opened.runtime.load("tiny").costs
        slow = costs.profile.device
        assert slow.power_mode != fast.power_mode
        modes.set(1)
        until(lambda: costs.profile.device == fast)
        assert costs.stale is None
        modes.set(0)
        until(lambda: costs.stale)
        assert costs.profile.device == fast
        modes.set(2)
        until(lambda: costs.profile.device == slow and costs.stale is None)
        assert opened.energy.describe().mode.name == "MODE_7W"


def test_a_model_that_is_loaded_while_the_mode_changes_gets_the_new_modes_profile(
    opening: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path / "root", "orin-nx")
    modes = ModeTree(tmp_path / "root", mode=2)
    with opening() as opened:
        slow = opened.runtime.load("tiny").costs.profile.device
    modes.set(1)
    with opening() as opened:
        before = opened.energy.mode

        def change(spec: object) -> None:
            modes.set(2)
            until(lambda: opened.energy.mode != before)

        monkeypatch.setattr("delen.daemon.build_model.prepare_decoding", change)
        costs = opened.runtime.load("tiny").costs
        until(lambda: costs.profile.device == slow)


def test_a_switched_mode_shows_at_once(opening: Callable[..., Any], tmp_path: Path) -> None:
    make_tree(tmp_path / "root", "orin-nx")
    ModeTree(tmp_path / "root", mode=1)
    with opening(power__switch_modes=True) as opened:
        opened.energy.set_limits(PowerChanges(mode="7W"))
        assert opened.energy.describe().mode.name == "MODE_7W"


def test_budgets_outlive_the_daemon(opening: Callable[..., Any], tmp_path: Path) -> None:
    make_tree(tmp_path / "root", "nano")
    with opening() as opened:
        opened.runtime.load("tiny")
        opened.energy.set_tenant("cam", TenantChanges(Budget(1e-9, 1e6)))
        with pytest.raises(BudgetExhausted):
            infer(opened, "cam")
        opened.energy.set_tenant("cam", TenantChanges(Budget(50.0, 1e6)))
        infer(opened, "cam")
        until(lambda: opened.energy.tenants()["cam"].balance < 50)
    with opening() as opened:
        cam = opened.energy.tenants()["cam"]
        assert cam.budget == Budget(50.0, 1e6)
        assert cam.balance < 50
        assert opened.energy.set_tenant("cam", TenantChanges(None)).budget is None
    with opening() as opened:
        assert "cam" not in opened.energy.tenants()


def test_without_a_source_nothing_is_known_and_all_is_served(
    opening: Callable[..., Any], tmp_path: Path
) -> None:
    with opening(power__source="none") as opened:
        opened.runtime.load("tiny")
        result = infer(opened)
        settled = opened.energy.receipt(result.request_id)
        assert settled.settled
        assert (settled.receipt.energy.kind, settled.receipt.energy.value) == ("unknown", None)
        status = opened.energy.describe()
        assert (status.source, status.state, status.kind) == (None, "none", "unknown")
        assert opened.energy.totals() == []


def test_the_model_is_final_at_once_and_estimated(
    opening: Callable[..., Any], tmp_path: Path
) -> None:
    with opening(power__source="model") as opened:
        opened.runtime.load("tiny")
        result = infer(opened)
        settled = opened.energy.receipt(result.request_id)
        assert settled.settled
        assert settled.receipt.energy == result.receipt.energy
        window = until(lambda: opened.energy.describe().window)
        assert (window.kind, window.idle) == ("estimated", None)
        assert opened.energy.describe().kind == "estimated"


def test_a_failing_attribution_leaves_estimates(
    opening: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failed: Callable[[str], int],
) -> None:
    def fail(*arguments: Any) -> Any:
        raise ArithmeticError("no window for you")

    make_tree(tmp_path / "root", "orin-nx")
    monkeypatch.setattr(Attributor, "close", fail)
    with opening() as opened, caplog.at_level(logging.ERROR, logger="delen.energy"):
        opened.runtime.load("tiny")
        first = infer(opened)
        settled = until(lambda: (own := opened.energy.receipt(first.request_id)).settled and own)
        assert settled.receipt.energy == first.receipt.energy
        second = infer(opened)
        until(lambda: opened.energy.receipt(second.request_id).settled)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    assert failed("attribution") >= 2


def test_a_tick_that_fails_is_not_the_last(
    opening: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failed: Callable[[str], int],
) -> None:
    def fail(energy: EnergyService) -> None:
        raise OSError("the device cannot be looked at")

    make_tree(tmp_path / "root", "orin-nx")
    monkeypatch.setattr(EnergyService, "_look", fail)
    with opening() as opened:
        opened.runtime.load("tiny")
        until(lambda: failed("energy_service") > 1)
        result = infer(opened)
        until(lambda: opened.energy.receipt(result.request_id).settled)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


def test_limits_come_and_go_one_by_one(opening: Callable[..., Any], tmp_path: Path) -> None:
    make_tree(tmp_path / "root", "orin-nx")
    battery = Battery(joules=3600.0, reserve=360.0, last=600.0)
    settings = {"energy__watt_cap_w": 30.0, "energy__battery_wh": 1.0}
    with opening(**settings, energy__battery_minutes=10.0) as opened:
        energy = opened.energy

        def names() -> set[str]:
            return {each.name for each in energy.describe().constraints} - {"thermal"}

        assert names() == {"watt_cap", "battery"}
        assert energy.describe().battery.left == pytest.approx(3600, rel=0.01)
        energy.set_limits(PowerChanges(watt_cap=None))
        assert names() == {"battery"}
        energy.set_limits(PowerChanges(battery=battery))
        assert energy.describe().battery.reserve == 360
        energy.set_limits(PowerChanges(watt_cap=20.0, battery=None, mode=UNCHANGED))
        assert names() == {"watt_cap"}


def test_limits_on_watts_need_a_sensor_or_trust(opening: Callable[..., Any]) -> None:
    battery = Battery(36_000, 3_600, 3_600)
    with opening(power__source="model") as opened:
        energy = opened.energy
        for changes in (PowerChanges(watt_cap=20.0), PowerChanges(battery=battery)):
            with pytest.raises(PowerError, match="processor time") as caught:
                energy.set_limits(changes)
            assert "power.trust_model" in str(caught.value.remedy)
        energy.set_limits(PowerChanges(watt_cap=None))
        assert energy.describe().warning is None
    capped = opening(power__source="model", energy__watt_cap_w=20.0)
    with pytest.raises(ConfigError, match=r"power\.trust_model"), capped:
        pass
    with opening(power__source="model", power__trust_model=True) as opened:
        assert opened.energy.describe().warning is None
        opened.energy.set_limits(PowerChanges(watt_cap=20.0, battery=battery))
        until(lambda: opened.energy.describe().watts is not None)

        def known() -> list[str]:
            return [each.explanation for each in opened.energy.describe().constraints]

        until(lambda: any("beside requests is unknown" in each for each in known()))
        assert not any("0 W" in each for each in known())
        assert "processor time" in opened.energy.describe().warning


def test_every_batch_and_audit_is_noted_before_its_answers(
    opening: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[Any] = []
    with opening(power__source="model") as opened:
        admission, ran, ended = (
            opened.energy.admission,
            opened.energy.admission.ran,
            opened.energy.admission.ended,
        )
        monkeypatch.setattr(admission, "ran", lambda work: (noted.append(work), ran(work)))
        monkeypatch.setattr(
            admission, "ended", lambda share, *rest: (noted.append(share), ended(share, *rest))
        )
        opened.runtime.load("tiny")
        result = infer(opened, "cam")
    works = [each for each in noted if isinstance(each, Work) and each.shares]
    assert [work.segment for work in works] == list(range(result.exit + 1))
    assert all(work.shares == ((result.request_id, "cam"),) for work in works)
    assert sum(work.joules or 0 for work in works) == pytest.approx(result.receipt.energy.value)
    assert noted.index((result.request_id, "cam")) > noted.index(works[-1])
