"""The directive in force: what it asks of each tenant, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from delen.core.fleet_terms import NO_TERMS, FleetTerms
from delen.engine.directives import Directives
from delen.errors import ModelNotFound
from policies.fleet.api import Ceiling, Directive, Price


@dataclass
class Device:
    """A clock, and models of which there is one."""

    now: float = 100.0
    kept: list[tuple[tuple[str, ...], float]] = field(default_factory=list)

    def keep(self, names: Sequence[str], until: float) -> None:
        if set(names) - {"pets"}:
            raise ModelNotFound("there is no such model")
        self.kept.append((tuple(names), until))


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def directives(device: Device) -> Directives:
    return Directives(device.keep, lambda: device.now)


def say(device: Device, lease: float = 3.0, resident: tuple[str, ...] = ()) -> Directive:
    ceilings = {"camera": Ceiling(1, (24, 24)), "door": Ceiling(2)}
    prices = {"camera": Price(0.5, 0.2), "yard": Price(0.0, 0.1)}
    return Directive("board", device.now, lease, ceilings, prices, resident)


def test_each_tenant_has_its_own_terms(directives: Directives, device: Device) -> None:
    directives.obey(say(device))
    assert directives.terms("camera") == FleetTerms(1, (24, 24), 0.5, 0.2)
    assert directives.terms("door") == FleetTerms(2)
    assert directives.terms("yard") == FleetTerms(per_joule=0.1)
    assert directives.terms("nobody") is NO_TERMS


def test_after_its_lease_the_daemon_decides_alone(directives: Directives, device: Device) -> None:
    directives.obey(say(device))
    device.now += 2.5
    led = directives.in_force()
    assert led is not None
    assert led[1] == pytest.approx(0.5)
    device.now += 0.5
    assert directives.terms("camera") is NO_TERMS
    assert directives.in_force() is None


def test_the_next_one_replaces_it_and_its_lease(directives: Directives, device: Device) -> None:
    directives.obey(say(device, resident=("pets",)))
    device.now += 2.0
    directives.obey(Directive("board", device.now, 3.0, {"door": Ceiling(0)}))
    device.now += 2.0
    assert directives.terms("camera") is NO_TERMS
    assert directives.terms("door") == FleetTerms(0)
    assert device.kept == [(("pets",), 103.0), ((), 105.0)]
    assert directives.accepted == 2


def test_one_that_names_nothing_withdraws(directives: Directives, device: Device) -> None:
    directives.obey(say(device))
    directives.obey(Directive("board", device.now, 0.0))
    assert directives.in_force() is None
    assert directives.terms("camera") is NO_TERMS


def test_one_that_cannot_be_obeyed_changes_nothing(directives: Directives, device: Device) -> None:
    directives.obey(say(device))
    with pytest.raises(ModelNotFound):
        directives.obey(Directive("board", device.now, 3.0, resident=("birds",)))
    assert directives.terms("door") == FleetTerms(2)
    assert directives.accepted == 1
