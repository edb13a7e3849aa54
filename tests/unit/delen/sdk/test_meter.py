from __future__ import annotations

from dataclasses import replace

import pytest

from delen.core.result import EnergyKind, Result
from delen.errors import DelenError
from delen.sdk.meter import Meter, Meters
from tests.unit.delen.answers import answer


def answered(joules: float | None, kind: EnergyKind) -> Result:
    result = answer("a", joules)
    energy = replace(result.receipt.energy, kind=kind)
    return replace(result, receipt=replace(result.receipt, energy=energy))


@pytest.mark.parametrize(
    ("kinds", "kind", "joules"),
    [
        ([], "attributed", 0.0),
        (["attributed", "attributed"], "attributed", 1.0),
        (["attributed", "estimated"], "estimated", 1.0),
        (["attributed", "unknown", "estimated"], "unknown", None),
    ],
)
def test_the_kind_is_that_of_the_least_known_receipt(
    kinds: list[EnergyKind], kind: EnergyKind, joules: float | None
) -> None:
    meters = Meters()
    with Meter(meters) as meter:
        for each in kinds:
            meters.take(answered(None if each == "unknown" else 0.5, each))
    assert (meter.kind, meter.joules, meter.answers) == (kind, joules, len(kinds))


def test_blocks_within_blocks_count_both() -> None:
    meters = Meters()
    with Meter(meters) as outer:
        meters.take(answer("a"))
        with Meter(meters) as inner:
            meters.take([answer("b"), answer("c")])
        meters.take({"models": []})
    meters.take(answer("d"))
    assert (outer.answers, inner.answers) == (3, 2)


def test_a_meter_that_runs_cannot_begin_again_and_one_that_ended_begins_anew() -> None:
    meters = Meters()
    meter = Meter(meters)
    with meter, pytest.raises(DelenError, match="another"), meter:
        pass
    with meter:
        meters.take(answer("a"))
    with meter:
        meters.take(answer("b"))
    assert (meter.answers, meter.joules) == (1, 0.5)


def test_a_block_that_raises_ends_its_meter() -> None:
    meters = Meters()
    meter = Meter(meters)
    with pytest.raises(KeyError), meter:
        raise KeyError
    meters.take(answer("a"))
    assert meter.answers == 0
    assert meter.seconds == meter.seconds


def test_a_receipt_that_came_from_no_client_is_final() -> None:
    meters = Meters()
    with Meter(meters) as meter:
        meters.take(answer("a"))
    assert meter.settled().joules == 0.5
