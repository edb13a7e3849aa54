"""Demands hold for a lease."""

from __future__ import annotations

from dataclasses import replace

import pytest

from delen.errors import Overloaded
from delen.fleet.demands import Demands
from tests.builders.fleet import demand


def test_a_demand_holds_for_its_lease_and_longer_where_it_is_renewed() -> None:
    demands = Demands(seconds=4.0)
    demands.note(demand("a"), 0.0)
    demands.note(demand("b"), 0.0)
    renewed = replace(demand("a"), fps=5.0)
    demands.note(renewed, 3.0)
    assert demands.alive(3.9) == [renewed, demand("b")]
    assert demands.alive(4.0) == [renewed]
    assert len(demands) == 1
    assert demands.alive(7.0) == []


def test_clients_beyond_the_most_are_refused_until_others_are_forgotten() -> None:
    demands = Demands(seconds=4.0, most=2)
    for name, now in (("a", 0.0), ("b", 1.0), ("a", 2.0)):
        demands.note(demand(name), now)
    with pytest.raises(Overloaded):
        demands.note(demand("c"), 2.0)
    demands.note(demand("c"), 5.5)
    assert [each.client for each in demands.alive(5.5)] == ["a", "c"]
