"""The service without its thread, so that nothing but the test moves it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from api.metrics.energy import EnergyCollector
from api.metrics.tenants import TenantCollector
from delen.core.energy_status import Battery, Budget, TenantChanges
from delen.core.work import Share
from delen.energy.ledger import Correction
from delen.energy.service import EnergyService, EnergySettings
from delen.tenants.store import TenantStore
from policies.energy.api import ControllerSettings
from policies.energy.price_controller import PriceController
from power.sources.source import PowerReading
from tests.unit.delen.answers import answer, work


class Source:
    """Measures 6 W, each time that it is asked."""

    name, scope, interval, kind = "dial", "module_input", 0.1, "measured"

    def __init__(self) -> None:
        self.reads = 0

    def read(self) -> PowerReading:
        self.reads += 1
        return PowerReading(float(self.reads), {"VDD_IN": 6.0}, 6.0)

    def close(self) -> None:
        """Nothing is held."""


class Watched(PriceController):
    """Notes what it is told that changes it."""

    def __init__(self) -> None:
        super().__init__(ControllerSettings())
        self.told: list[str] = []

    def tick(self, *how: Any) -> None:
        self.told.append("tick")
        super().tick(*how)

    def settled(self, *how: Any) -> None:
        self.told.append("settled")
        super().settled(*how)


def state(of: Any) -> Any:
    """All that ``of`` is made of, as values that can be compared."""
    if isinstance(of, (list, tuple, set, frozenset)) or type(of).__name__ == "deque":
        return [state(each) for each in of]
    if isinstance(of, dict):
        return [(key, state(each)) for key, each in of.items()]
    if type(of).__module__.split(".")[0] in ("delen", "policies", "power"):
        names = [*getattr(of, "__dict__", ()), *getattr(of, "__slots__", ())]
        return [(name, state(getattr(of, name, None))) for name in names]
    return copy.copy(of) if isinstance(of, (str, int, float)) else repr(of)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., EnergyService]:
    def make(source: Source | None = None, **settings: Any) -> EnergyService:
        store = TenantStore(tmp_path / "tenants.json")
        return EnergyService(source, Watched(), tmp_path, store, EnergySettings(**settings))

    return make


def read_everything(service: EnergyService) -> list[Any]:
    """All that a GET reads."""
    registry = CollectorRegistry()
    registry.register(EnergyCollector(service))
    registry.register(TenantCollector(service))
    return [
        service.describe(),
        service.history(600.0),
        service.receipt("a"),
        service.receipt("unknown"),
        service.totals(),
        service.tenants(),
        service.fairness(),
        generate_latest(registry),
    ]


def happen(service: EnergyService) -> None:
    """A request is answered, one fails, one is refused."""
    admission = service.admission
    admission.ran(work("a", "b", tenant="cam"))
    admission.ended(Share("a", "cam"), 0.5, 0.5, answer("a", tenant="cam"))
    admission.ended(Share("b", "cam"), 0.5, 0.1, None)
    admission.refused("flood", "overloaded")


def test_reading_changes_nothing(make: Callable[..., EnergyService]) -> None:
    service = make(Source(), watt_cap=20.0, battery=Battery(3600.0, 360.0, 600.0))
    service.set_tenant("cam", TenantChanges(Budget(10.0, 60.0), weight=2.0))
    happen(service)
    before = state(service)
    for _ in range(3):
        read_everything(service)
    assert state(service) == before
    happen(service)
    assert state(service) != before, "or the comparison would see nothing"


def test_what_has_just_happened_is_read_although_nothing_was_entered(
    make: Callable[..., EnergyService],
) -> None:
    service = make(Source())
    happen(service)
    receipt = service.receipt("a")
    assert receipt is not None
    assert (receipt.settled, receipt.receipt) == (False, answer("a").receipt)
    assert service.receipt("b") is None, "it has no answer"
    tenants = service.tenants()
    assert list(tenants) == ["cam", "flood"], "in the order in which they came"
    assert (tenants["cam"].answers, tenants["cam"].seconds) == (1, pytest.approx(0.1))
    assert tenants["flood"].refused == {"overloaded": 1}
    assert tenants["cam"].share == 1.0
    assert service.totals() == [], "no joule is final yet"


def test_reading_before_and_after_events_are_entered_shows_the_same(
    make: Callable[..., EnergyService],
) -> None:
    service = make()
    happen(service)
    pending = service.receipt("a"), service.totals(), service.tenants(), service.fairness()
    service._settle()
    assert service.admission.pending() == []
    assert (
        service.receipt("a"), service.totals(), service.tenants(), service.fairness()
    ) == pending  # fmt: skip
    assert pending[0].settled, "nothing measures, so the estimate is final"
    assert pending[1][0].joules == 0.5


def test_what_was_spent_since_the_last_tick_is_kept_at_the_end(
    make: Callable[..., EnergyService], tmp_path: Path
) -> None:
    service = make(Source())
    service.set_tenant("cam", TenantChanges(Budget(10.0, 60.0)))
    happen(service)
    service.close()
    kept = json.loads((tmp_path / "tenants.json").read_text())["tenants"]["cam"]
    assert kept["spent_j"] == pytest.approx(0.6)


def test_an_end_that_cannot_be_charged_is_an_end_all_the_same(
    make: Callable[..., EnergyService], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service = make(Source())
    service.set_tenant("cam", TenantChanges(Budget(10.0, 60.0)))

    def fail(*_: object) -> None:
        raise ArithmeticError("a controller of somebody else's")

    monkeypatch.setattr(service, "_settle", fail)
    service.close()
    assert "cam" in json.loads((tmp_path / "tenants.json").read_text())["tenants"]


def test_an_answer_is_charged_although_no_window_can_be_closed(
    make: Callable[..., EnergyService], monkeypatch: pytest.MonkeyPatch
) -> None:
    def close_due(*_: object) -> list[Correction]:
        raise ArithmeticError("no such window")

    service = make(Source())
    correction, settled = Correction("cam", 1.0, 2.0, 2.0), list[Correction]()
    monkeypatch.setattr(service._accounting, "enter", lambda events: [correction])
    monkeypatch.setattr(service._accounting, "close_due", close_due)
    monkeypatch.setattr(service.admission, "settle", settled.extend)
    with pytest.raises(ArithmeticError):
        service._settle()
    assert settled == [correction]


def test_a_source_that_stalls_is_seen_by_readers_and_counted_by_the_service(
    make: Callable[..., EnergyService],
    monkeypatch: pytest.MonkeyPatch,
    failed: Callable[[str], int],
) -> None:
    service = make(Source())
    monkeypatch.setattr(service._sampler, "_clock", lambda: 1e9)
    for _ in range(2):
        status = service.describe()
        assert (status.state, status.errors) == ("degraded", 0)
        assert status.problem is not None
        assert "have not advanced" in status.problem
    service._settle()
    assert service.describe().errors == failed("power_source") == 1
