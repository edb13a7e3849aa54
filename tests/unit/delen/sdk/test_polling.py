from __future__ import annotations

import asyncio
import copy
import dataclasses
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from delen.core.energy_status import Settled
from delen.core.result import (
    AccuracyOutcome,
    EnergyOutcome,
    LatencyOutcome,
    Prediction,
    Receipt,
    Result,
)
from delen.errors import InvalidInput, NotFound, NotSettled
from delen.sdk.meter import AsyncMeter, Meter, Meters
from delen.sdk.polling import follow, wait_settled, wait_settled_async

FIRST = EnergyOutcome(None, 0.03, 0.03, "estimated", "profile", "module_input", None)
FINAL = EnergyOutcome(None, 0.04, 0.03, "attributed", "ina3221", "module_input", None)


def receipt(energy: EnergyOutcome) -> Receipt:
    return Receipt(
        LatencyOutcome(None, 0.01, 0.001, 0.01, None),
        AccuracyOutcome(None, 0.9, 0.9, None, None),
        energy,
    )


def answers(*energies: tuple[EnergyOutcome, bool]) -> Iterator[Settled]:
    for energy, settled in energies:
        yield Settled("a-1", "m", "camera", 2, "final", receipt(energy), settled)


def result() -> Result:
    return Result(
        model="m",
        version="1",
        request_id="a-1",
        predictions=(Prediction(3, "cat", 0.9),),
        probabilities=np.float32([0.1, 0.9]),
        exit=2,
        exits=3,
        reason="final",
        receipt=receipt(FIRST),
        tenant="camera",
        stream=None,
    )


def test_it_is_asked_until_the_energy_is_final() -> None:
    told = answers((FIRST, False), (FIRST, False), (FINAL, True), (FIRST, False))
    assert wait_settled(lambda: next(told), "a-1", 60.0) == FINAL
    assert len(list(told)) == 1


def test_it_is_asked_once_when_there_is_no_time() -> None:
    assert wait_settled(lambda: next(answers((FINAL, True))), "a-1", 0.0) == FINAL
    told = answers((FIRST, False), (FINAL, True))
    with pytest.raises(NotSettled, match="a-1 is not final after 0 s") as caught:
        wait_settled(lambda: next(told), "a-1", 0.0)
    assert isinstance(caught.value, TimeoutError)
    assert len(list(told)) == 1


def test_it_is_asked_again_when_the_time_is_over() -> None:
    asked: list[str] = []

    def ask() -> Settled:
        asked.append("again")
        return next(answers((FIRST, False)))

    with pytest.raises(NotSettled):
        wait_settled(ask, "a-1", 0.03)
    assert len(asked) >= 2


def test_a_request_that_is_not_known_is_not_waited_for() -> None:
    with pytest.raises(NotFound, match="a-1"):
        wait_settled(lambda: None, "a-1", 60.0)


async def test_asyncio_waits_alike() -> None:
    told = answers((FIRST, False), (FINAL, True))

    async def ask() -> Settled:
        return next(told)

    assert await wait_settled_async(ask, "a-1", 60.0) == FINAL

    async def never() -> Settled:
        return next(answers((FIRST, False)))

    with pytest.raises(NotSettled):
        await wait_settled_async(never, "a-1", 0.03)
    task = asyncio.create_task(wait_settled_async(never, "a-1", 3600.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_followed_result_asks_with_its_own_id_and_time_out() -> None:
    asked: list[tuple[str, float]] = []

    def settle(request_id: str, timeout: float) -> Any:
        asked.append((request_id, timeout))
        return FINAL

    followed = follow(result(), settle)
    assert followed.receipt.energy.settled(timeout=3.0) is FINAL
    assert followed.receipt.energy.settled() is FINAL
    assert asked == [("a-1", 3.0), ("a-1", 15.0)]


def test_an_outcome_of_nowhere_is_its_own_last_word() -> None:
    assert FIRST.settled() is FIRST
    assert FINAL.settled(timeout=0.0) is FINAL


@pytest.mark.parametrize("timeout", ["5", None, [1], True, -1.0, float("nan"), float("inf")])
def test_nobody_waits_for_what_is_not_a_time(timeout: Any) -> None:
    for settled in (FINAL.settled, Meter(Meters()).settled):
        with pytest.raises(InvalidInput, match="timeout") as caught:
            settled(timeout)
        assert caught.value.field == "timeout"


@pytest.mark.parametrize("timeout", ["5", None, -1.0])
async def test_nobody_awaits_what_is_not_a_time(timeout: Any) -> None:
    with pytest.raises(InvalidInput, match="timeout"):
        await AsyncMeter(Meters()).settled(timeout)


def test_following_is_no_part_of_the_value() -> None:
    plain = result()
    energy = follow(plain, lambda request_id, timeout: FINAL).receipt.energy
    assert energy == FIRST
    assert hash(energy) == hash(FIRST)
    assert repr(energy) == repr(FIRST)
    assert dataclasses.asdict(energy) == dataclasses.asdict(FIRST)
    assert plain.receipt.energy.settled() is plain.receipt.energy
    for copied in (pickle.loads(pickle.dumps(energy)), copy.deepcopy(energy)):
        assert copied == FIRST
        assert copied.settled() is copied
