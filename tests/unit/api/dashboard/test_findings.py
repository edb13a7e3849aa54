from __future__ import annotations

import errno
import logging
import time
from dataclasses import replace
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from api.dashboard import findings
from api.dashboard.findings import find_problems
from delen.core.energy_status import ModeStatus, PowerStatus, TenantStatus
from delen.core.failures import FailureCounter
from delen.engine.guarantee_monitor import GuaranteeMonitor
from delen.residency.registry import Entry
from delen.wire.models import Health
from tests.unit.api.conftest import NOBODY, STATUS

WELL = Health("ok", "0")


def entry(
    problem: str | None = None,
    slowdown: float = 1.0,
    monitor: GuaranteeMonitor | None = None,
    **of_profile: Any,
) -> Entry[Any]:
    profile = SimpleNamespace(**{"rough": False, "busy": False, **of_profile})
    costs = SimpleNamespace(profile=profile, stale=None, slowdown=SimpleNamespace(mean=slowdown))
    model = SimpleNamespace(monitor=monitor or GuaranteeMonitor(), costs=costs)
    manifest: Any = SimpleNamespace(name="m")
    return Entry(Path(), manifest, "ready", problem, model)


def problems(
    *entries: Entry[Any],
    health: Health = WELL,
    power: PowerStatus = STATUS,
    needed: str = "",
    **tenants: TenantStatus,
) -> list[str]:
    found = find_problems(health, entries, power, tenants, needed)
    assert all(each.remedy for each in found)
    return [each.problem for each in found if "inside the daemon (" not in each.problem]


def test_a_daemon_that_is_well_has_none() -> None:
    assert problems(entry(), app=NOBODY) == []


def test_a_model_says_what_is_wrong_with_it() -> None:
    assert "cannot be loaded: torn" in problems(entry("torn"))[0]
    assert "rough profile" in problems(entry(rough=True))[0]
    assert "busy machine" in problems(entry(busy=True))[0]
    assert "2.0 times" in problems(entry(slowdown=2.0))[0]
    monitor = GuaranteeMonitor()
    monitor.follow("m", has_departed=True)
    assert "not like the calibration data" in problems(entry(monitor=monitor))[0]


def test_power_and_apps_say_what_is_wrong_with_them() -> None:
    assert "no power source" in problems(power=replace(STATUS, state="none"))[0]
    degraded = replace(STATUS, state="degraded", problem="EIO")
    assert "EIO" in problems(power=degraded)[0]
    mode = ModeStatus(2, "15W", "", False, ("the GPU is hot",))
    warned = replace(STATUS, warning="limits see the processor alone", mode=mode)
    assert problems(power=warned) == [
        "limits see the processor alone",
        "the device is held back: the GPU is hot",
    ]
    spent = replace(NOBODY, balance=-1.0, price=inf)
    assert problems(spent=spent, other=replace(NOBODY, balance=1.0)) == [
        "the energy budget of spent is spent, so its requests are refused"
    ]


def test_what_hangs_comes_first() -> None:
    failing = Health("failing", "0", ("a thread has died",))
    assert problems(entry(rough=True), health=failing)[0] == "a thread has died"


def test_a_default_model_that_is_not_loaded_is_a_problem() -> None:
    unloaded = replace(entry(), state="unloaded", model=None)
    found = find_problems(WELL, [unloaded], STATUS, {}, needed="m")[0]
    assert "m, the default model, is unloaded" in found.problem
    assert "/v1/models/m/load" in found.remedy
    assert "not loaded yet" in problems(replace(unloaded, state="loading"), needed="m")[0]
    assert problems(unloaded, needed="other") == problems(entry(), needed="m") == []


def test_a_full_disk_is_named_with_the_folder_to_make_room_in() -> None:
    counter = FailureCounter("findings_test", logging.getLogger("delen.test"))
    counter.failed(OSError(errno.ENOSPC, "No space left", "/state/energy.json"), "it is not kept")
    found = find_problems(WELL, [], STATUS, {})
    mine = next(each for each in found if "findings_test" in each.problem)
    assert "/state could not be written: No space left" in mine.problem
    assert "make room on the disk of /state" in mine.remedy
    counter.failed(OSError(errno.EROFS, "Read-only", "/state/energy.json"), "it is not kept")
    mine = next(e for e in find_problems(WELL, [], STATUS, {}) if "findings_test" in e.problem)
    assert "mount the disk of /state" in mine.remedy


def test_a_failure_is_no_finding_an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = FailureCounter("once", logging.getLogger("delen.test"))

    def found(later: float) -> list[str]:
        now = time.monotonic() + later
        monkeypatch.setattr(findings.time, "monotonic", lambda: now)
        of_now = [each.problem for each in find_problems(WELL, [], STATUS, {})]
        monkeypatch.undo()
        return [problem for problem in of_now if "(once)" in problem]

    assert found(0.0) == []
    counter.failed(KeyError("x"), "it failed")
    assert found(0.0) == ["a failure inside the daemon (once), the last a moment ago"]
    counter.failed(KeyError("x"), "it failed")
    assert found(600.0) == ["2 failures inside the daemon (once), the last 10 min ago"]
    assert found(3601.0) == []
