"""Whose body is read next, and who pays for it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from api.readers import _MOST_WAITING, FairTurns, Readers
from api.server.body import ClientGone
from delen.errors import InvalidInput, Overloaded

IMAGE = "image/png"


class Waiting:
    is_gone = False


@pytest.mark.asyncio
async def test_payers_have_turns_one_after_the_other() -> None:
    turns, order = FairTurns(1), []
    await turns.take("busy")

    async def use(payer: str) -> None:
        name = await turns.take(payer)
        order.append(payer)
        turns.give_back(name, 0.01)

    tasks = [asyncio.create_task(use("flood")) for _ in range(5)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(use("camera")) for _ in range(2)]
    await asyncio.sleep(0)
    turns.give_back("busy", 0.01)
    await asyncio.gather(*tasks)
    assert order == ["flood", "camera", "flood", "camera", "flood", "flood", "flood"]


@pytest.mark.asyncio
async def test_the_last_turn_is_kept_for_who_has_used_little() -> None:
    turns = FairTurns(2)
    for _ in range(10):
        turns.give_back(await turns.take("flood"), 1.0)
    await turns.take("flood")
    second = asyncio.create_task(turns.take("flood"))
    await asyncio.sleep(0)
    assert not second.done()
    assert await turns.take("camera") == "camera"
    turns.give_back("camera", 0.001)
    await asyncio.sleep(0)
    assert not second.done()
    turns.give_back("flood", 1.0)
    assert await second == "flood"


@pytest.mark.asyncio
async def test_only_so_much_of_one_payer_waits() -> None:
    turns = FairTurns(1)
    await turns.take("busy")
    waiting = [asyncio.create_task(turns.take("flood")) for _ in range(_MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="flood") as refused:
        await turns.take("flood")
    assert refused.value.retry_after >= 1.0
    other = asyncio.create_task(turns.take("camera"))
    await asyncio.sleep(0)
    assert not other.done(), "it waits, and is not refused"
    for task in [*waiting, other]:
        task.cancel()
    await asyncio.gather(*waiting, other, return_exceptions=True)
    turns.give_back("busy", 0.0)
    assert await turns.take("camera") == "camera", "who left has no turn"


@pytest.mark.asyncio
async def test_names_without_end_take_no_memory() -> None:
    turns = FairTurns(1)
    await turns.take("busy")
    waiting = [asyncio.create_task(turns.take(f"n{each}")) for each in range(200)]
    await asyncio.sleep(0)
    refused = [task for task in waiting if task.done() and task.exception()]
    assert len(refused) > 50, "those beyond some have one place in the order"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.asyncio
@pytest.mark.parametrize("media_type", [IMAGE, "application/json"])
async def test_the_payer_is_charged_whatever_comes_of_it(media_type: str) -> None:
    charged: list[tuple[str, float, str]] = []

    def charge(payer: str, seconds: float) -> None:
        charged.append((payer, seconds, threading.current_thread().name))

    def work() -> int:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return 7

    def fail() -> Any:
        work()
        raise InvalidInput("junk")

    readers = Readers(2, charge)
    assert (await readers.read(Waiting(), "camera", media_type, work))[0] == 7
    with pytest.raises(InvalidInput):
        await readers.read(Waiting(), "flood", media_type, fail)
    assert [payer for payer, _, _ in charged] == ["camera", "flood"]
    assert all(seconds >= 0.02 for _, seconds, _ in charged)
    assert all(thread.startswith("http-decode") for _, _, thread in charged)


@pytest.mark.asyncio
async def test_nothing_is_read_for_who_has_left() -> None:
    readers, gone = Readers(1, lambda payer, seconds: None), Waiting()
    gone.is_gone = True
    with pytest.raises(ClientGone):
        await readers.read(gone, "camera", IMAGE, lambda: pytest.fail("it was read"))
    assert (await readers.read(Waiting(), "camera", IMAGE, lambda: 7))[0] == 7
