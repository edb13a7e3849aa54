from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from delen.energy_desk import ControllerDesk
from delen.power_status import Budget
from delen.tenant_file import TenantFile
from delen.tenants import Tenants
from policies.controller import ControllerSettings
from policies.pricing import PriceController


def test_budgets_that_are_set_at_once_are_all_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = TenantFile(tmp_path / "tenants.json")
    names = [f"camera-{number}" * (1 + number % 5) for number in range(12)]
    for _ in range(5):
        tenants = Tenants(ControllerDesk(PriceController(ControllerSettings())), file)
        with caplog.at_level(logging.ERROR), ThreadPoolExecutor(12) as pool:
            list(pool.map(tenants.set, names, [Budget(10.0, 60.0)] * len(names)))
        assert set(file.load(0.0)) == set(names)
        file.save({}, 0.0)
    assert caplog.text == ""
