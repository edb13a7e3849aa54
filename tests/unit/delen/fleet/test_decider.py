"""One decision, as the coordinator's actor makes it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from typing import Any

import pytest

from delen.errors import ConfigError, DelenError
from delen.fleet.decider import Decider, Decision, pack_demands, pack_policy
from delen.wire.fleet import MOST_NAMES
from policies.fleet.api import Ceiling, Demand, Directive, FleetPolicy, Price, Standing
from policies.fleet.default import Default
from policies.fleet.static import RandomLoad
from tests.builders.fleet import MODEL, demand, standing


class Told:
    """Coordinates by what it is told to give, or to raise."""

    name = "told"

    def __init__(self, given: Any) -> None:
        self.given = given

    def coordinate(
        self, standings: Sequence[Standing], demands: Sequence[Demand], now: float
    ) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given

    def route(self, request: Demand, standings: Sequence[Standing], now: float) -> None: ...


def decide(policy: FleetPolicy, *demands: Demand) -> Decision:
    nodes = [standing("near"), standing("far")]
    return Decider().decide(pack_policy(policy), nodes, pack_demands(demands), 0.5, lease=4.0)


def test_the_policy_comes_back_as_it_routes_from_now_on() -> None:
    one = demand("a", deadline=0.03)
    decision = decide(Default(), one)
    assert decision.policy is not None
    route = pickle.loads(decision.policy).route(one, [standing("near"), standing("far")], 0.6)
    told = json.loads(decision.directives[route.node])
    assert told == {
        "lease_s": 4.0,
        "ceilings": {"default": {"exit": route.ceiling.exit, "size": None}},
        "resident": [MODEL],
    }


def test_a_policy_that_is_as_before_does_not_come_back() -> None:
    assert decide(RandomLoad(), demand("a")).policy is None


def test_prices_and_sizes_are_written_and_empty_directives_left_out() -> None:
    ceilings, prices = {"shop": Ceiling(1, (32, 48))}, {"shop": Price(2.0, 0.5)}
    directives = [Directive("near", 0.0, 99.0, ceilings, prices), Directive("far", 0.0, 99.0)]
    found = decide(Told(directives)).directives
    assert set(found) == {"near"}
    assert json.loads(found["near"]) == {
        "lease_s": 4.0,
        "ceilings": {"shop": {"exit": 1, "size": [32, 48]}},
        "prices": {"shop": {"per_second": 2.0, "per_joule": 0.5}},
    }


def test_a_directive_names_as_many_tenants_as_a_daemon_takes() -> None:
    ceilings = {f"tenant{n}": Ceiling(1) for n in range(MOST_NAMES + 1)}
    found = decide(Told([Directive("near", 0.0, 1.0, ceilings)])).directives
    assert len(json.loads(found["near"])["ceilings"]) == MOST_NAMES


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (KeyError("near"), "KeyError"),
        (None, "TypeError"),
        ([42], "not a Directive"),
        ([Directive("moon", 0.0, 1.0)], "moon"),
        ([Directive("near", 0.0, 1.0, {"shop": Price()})], "not of the type Ceiling"),  # type: ignore[dict-item]
    ],
)
def test_a_policy_that_fails_is_named(given: Any, named: str) -> None:
    with pytest.raises(DelenError, match=named):
        decide(Told(given))


def test_a_policy_that_cannot_be_copied_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="'told' cannot be copied"):
        pack_policy(Told(lambda: None))
