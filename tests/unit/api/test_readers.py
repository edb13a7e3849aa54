"""Whose body is read next, and who pays for it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

import pytest

from api.readers import _MOST_WAITING, FairTurns, Readers
from api.server.body import ClientGone
from delen.errors import InvalidInput, Overloaded

IMAGE, JSON = "image/png", "application/json"


class Waiting:
    is_gone = False


def ignore(payer: str, seconds: float) -> None:
    pass


def known(payer: str) -> bool:
    return True


@pytest.mark.asyncio
async def test_payers_have_turns_one_after_the_other() -> None:
    turns, order = FairTurns(1), []
    await turns.take("busy")

    async def use(payer: str) -> None:
        await turns.take(payer)
        order.append(payer)
        turns.give_back(payer, 0.01)

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
        await turns.take("flood")
        turns.give_back("flood", 1.0)
    await turns.take("flood")
    second = asyncio.create_task(turns.take("flood"))
    await asyncio.sleep(0)
    assert not second.done()
    await turns.take("camera")
    turns.give_back("camera", 0.001)
    await asyncio.sleep(0)
    assert not second.done()
    turns.give_back("flood", 1.0)
    await second


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
    await asyncio.wait_for(turns.take("camera"), 10)  # who left has no turn


@pytest.mark.asyncio
async def test_a_turn_may_be_waited_for_on_another_event_loop() -> None:
    turns = FairTurns(1)
    await turns.take("busy")
    other = threading.Thread(target=lambda: asyncio.run(turns.take("camera")))
    other.start()
    while turns.is_only("busy"):
        await asyncio.sleep(0.001)
    turns.give_back("busy", 0.01)
    await asyncio.to_thread(other.join)


@pytest.mark.asyncio
async def test_names_that_nobody_knows_have_one_turn_together() -> None:
    """Under a new name for each body a flood had a place, and the light use of a newcomer, each
    time."""
    order: list[str] = []
    hold = threading.Event()
    readers = Readers(2, ignore, {"camera", "busy"}.__contains__)

    async def read(payer: str) -> None:
        await readers.read(Waiting(), payer, JSON, lambda: order.append(payer))

    busy = asyncio.create_task(readers.read(Waiting(), "busy", JSON, lambda: hold.wait(10)))
    await asyncio.sleep(0)
    tasks = [asyncio.create_task(read(f"n{each}")) for each in range(200)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(read("camera")))
    await asyncio.sleep(0)
    refused = [task for task in tasks if task.done() and isinstance(task.exception(), Overloaded)]
    assert len(refused) == 200 - _MOST_WAITING
    hold.set()
    await asyncio.gather(busy, *tasks, return_exceptions=True)
    assert order.index("camera") <= 1


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

    readers = Readers(2, charge, known)
    assert (await readers.read(Waiting(), "camera", media_type, work))[0] == 7
    with pytest.raises(InvalidInput):
        await readers.read(Waiting(), "flood", media_type, fail)
    assert [payer for payer, _, _ in charged] == ["camera", "flood"]
    assert all(seconds >= 0.02 for _, seconds, _ in charged)
    assert all(thread.startswith(("http-decode", "http-json")) for _, _, thread in charged)


@pytest.mark.asyncio
async def test_who_is_named_in_a_body_pays_for_it() -> None:
    charged: list[str] = []
    readers = Readers(2, lambda payer, seconds: charged.append(payer), known)
    await readers.read(Waiting(), "default", JSON, lambda: "camera", lambda found: found)
    with pytest.raises(InvalidInput):
        await readers.read(Waiting(), "default", JSON, refuse, lambda found: found)
    assert charged == ["camera", "default"]


def refuse() -> str:
    raise InvalidInput("junk")


@pytest.mark.asyncio
async def test_json_is_read_at_once_where_nobody_else_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pause is for others. Without them it made 88 ms of the 22 that a body of 600 KB takes."""
    monkeypatch.setattr("api.readers._PAUSES", 1e9)
    monkeypatch.setattr("api.readers._LONGEST_PAUSE", 3600.0)
    readers = Readers(2, ignore, known)
    for _ in range(3):
        await readers.read(Waiting(), "app", JSON, lambda: 7)
    readers.notice()
    await readers.read(Waiting(), "app", JSON, lambda: 7)
    paused = asyncio.create_task(readers.read(Waiting(), "app", JSON, lambda: 7))
    await asyncio.wait([paused], timeout=0.05)
    assert not paused.done(), "a camera sends, so that JSON waits"
    paused.cancel()


@pytest.mark.asyncio
async def test_json_of_another_tenant_is_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.readers._PAUSES", 1e9)
    monkeypatch.setattr("api.readers._LONGEST_PAUSE", 3600.0)
    readers = Readers(2, ignore, known)
    await readers.read(Waiting(), "app", JSON, lambda: time.sleep(0.01))
    await readers.read(Waiting(), "other", JSON, lambda: 7)
    paused = asyncio.create_task(readers.read(Waiting(), "app", JSON, lambda: 7))
    await asyncio.wait([paused], timeout=0.05)
    assert not paused.done()
    paused.cancel()


@pytest.mark.asyncio
async def test_decoders_leave_the_cores_to_the_lanes() -> None:
    readers = Readers(2, ignore, known)

    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = niceness()
    assert (await readers.read(Waiting(), "camera", IMAGE, niceness))[0] == min(19, own + 5)
    assert (await readers.read(Waiting(), "camera", JSON, niceness))[0] == own, "it holds the lock"
    assert niceness() == own


@pytest.mark.asyncio
async def test_nothing_is_read_for_who_has_left() -> None:
    readers, gone = Readers(1, ignore, known), Waiting()
    gone.is_gone = True
    with pytest.raises(ClientGone):
        await readers.read(gone, "camera", IMAGE, lambda: pytest.fail("it was read"))
    assert (await readers.read(Waiting(), "camera", IMAGE, lambda: 7))[0] == 7
