"""Threads that read what takes long: images, recordings, packed bodies, large JSON."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from math import exp, inf
from typing import Protocol, TypeVar

from api.reply import JSON
from api.server.body import ClientGone
from delen.errors import Overloaded

T = TypeVar("T")

_PAUSES, _LONGEST_PAUSE = 4.0, 0.25
"""After JSON was read there is a pause of so many times what it took, and of at most so many
seconds, unless nobody else is there: no other tenant's JSON in the last ``_MEMORY``, and nothing
but JSON in the last ``_QUIET``."""
_QUIET = 0.5
_MOST_WAITING = 32
_MEMORY = 10.0
_LIGHT = 0.5
"""Who has used so many seconds in the last ``_MEMORY`` has used little."""
_LEAST = 0.001
_NICENESS = 5
"""What the system is to give decoders less of than it gives the lanes."""
REST = ""
"""The payer of all that nobody knows, by a name that none can have."""


class Client(Protocol):
    """Whose request is read. ``is_gone`` is true once nobody waits for its answer."""

    is_gone: bool


class FairTurns:
    """So many ``turns`` at once, which payers that wait have one after the other. Many event loops
    may call it.

    A turn cannot be taken back, so the last free one is kept for payers that have used little, or
    no more than others: who comes every now and then does not wait for what takes long. Overloaded
    for those beyond ``_MOST_WAITING`` of one payer.
    """

    def __init__(self, turns: int) -> None:
        self._lock = threading.Lock()
        self._turns = self._free = turns
        self._waiting: OrderedDict[str, deque[Future[None]]] = OrderedDict()
        self._used: dict[str, float] = {}
        self._aged = time.monotonic()
        self._seconds = 0.0

    async def take(self, payer: str) -> None:
        """Wait for a turn."""
        with self._lock:
            turn = self._enter(payer)
        if turn is None:
            return
        try:
            await asyncio.wrap_future(turn)
        except asyncio.CancelledError:
            if not turn.cancel():
                self.give_back(payer, 0.0)
            raise

    def give_back(self, payer: str, seconds: float) -> None:
        """A turn is over, and ``payer`` used it for ``seconds``."""
        with self._lock:
            self._seconds += 0.1 * (seconds - self._seconds)
            self._age()
            self._used[payer] = self._used.get(payer, 0.0) + seconds
            self._free += 1
            while (following := next(filter(self._may_begin, self._waiting), None)) is not None:
                queue = self._waiting.pop(following)
                turn = queue.popleft()
                if queue:
                    self._waiting[following] = queue  # behind all others
                if turn.set_running_or_notify_cancel():
                    turn.set_result(None)
                    self._free -= 1

    def is_only(self, payer: str) -> bool:
        """Whether nobody but ``payer`` has used turns lately, or waits for one."""
        with self._lock:
            self._age()
            return {payer} >= self._used.keys() | self._waiting.keys()

    def _enter(self, payer: str) -> Future[None] | None:
        queue = self._waiting.get(payer)
        if queue is None and self._may_begin(payer):
            self._free -= 1
            return None
        queue = self._waiting.setdefault(payer, deque())
        if len(queue) >= _MOST_WAITING:
            wait = max(1.0, self._seconds * sum(map(len, self._waiting.values())))
            whose = f"tenant {payer!r}" if payer != REST else "unknown tenants"
            raise Overloaded(f"{_MOST_WAITING} bodies of {whose} wait to be read", retry_after=wait)
        turn: Future[None] = Future()
        queue.append(turn)
        return turn

    def _may_begin(self, payer: str) -> bool:
        if self._free > 1 or self._turns == 1:
            return self._free > 0
        return self._free == 1 and self._has_used_little(payer)

    def _has_used_little(self, payer: str) -> bool:
        used = self._used.get(payer, 0.0)
        mean = sum(self._used.values()) / len(self._used) if len(self._used) > 1 else 0.0
        return used <= max(_LIGHT, mean)

    def _age(self) -> None:
        """Seconds count for less as they pass, and at last for nothing."""
        now = time.monotonic()
        kept = exp((self._aged - now) / _MEMORY)
        self._aged = now
        self._used = {payer: kept * used for payer, used in self._used.items() if used > _LEAST}


class Readers:
    """Reads on ``threads``. ``charge`` is called there with the payer and the processor time that a
    body took, whatever came of it. Payers that are not ``known`` have one turn together: names cost
    nothing.

    Reading JSON holds the interpreter, so there is one at a time, and a pause after each, in which
    the lanes go on. Other decoders hold no more than a core, which the lanes have first.
    """

    def __init__(
        self, threads: int, charge: Callable[[str, float], None], known: Callable[[str], bool]
    ) -> None:
        self._decoders = ThreadPoolExecutor(threads, "http-decode", initializer=_step_back)
        self._parser = ThreadPoolExecutor(1, "http-json")
        self._charge = charge
        self._known = known
        self._turns = FairTurns(threads)
        self._json_turn = FairTurns(1)
        self._noticed = -inf

    def notice(self) -> None:
        """A request came that is not large JSON: it is not to wait for what is."""
        self._noticed = time.monotonic()

    async def read(
        self,
        client: Client,
        payer: str,
        media_type: str,
        read: Callable[[], T],
        payer_of: Callable[[T], str] | None = None,
    ) -> tuple[T, float]:
        """What ``read`` returns, and for how many seconds it waited first. Overloaded where too
        much of ``payer`` waits, ClientGone where ``client`` has left meanwhile. Who is to pay for
        what was read is ``payer_of`` that, where it says so."""
        loop, asked = asyncio.get_running_loop(), time.monotonic()
        is_json = media_type == JSON
        turns, threads = self._turns, self._decoders
        if is_json:
            turns, threads = self._json_turn, self._parser
        else:
            self.notice()
        user = self._user(payer)
        await turns.take(user)
        began, pause = time.monotonic(), 0.0
        try:
            if client.is_gone:
                raise ClientGone
            found = await loop.run_in_executor(threads, self._charged, payer, read, payer_of)
            if payer_of is not None:
                user = self._user(payer_of(found))
            return found, began - asked
        finally:
            seconds = time.monotonic() - began
            if is_json and not self._is_alone(user):
                pause = min(_LONGEST_PAUSE, _PAUSES * seconds)
            loop.call_later(pause, turns.give_back, user, seconds)

    def _user(self, payer: str) -> str:
        return payer if self._known(payer) else REST

    def _is_alone(self, user: str) -> bool:
        is_quiet = time.monotonic() - self._noticed > _QUIET
        return is_quiet and self._json_turn.is_only(user)

    def _charged(self, payer: str, read: Callable[[], T], payer_of: Callable[[T], str] | None) -> T:
        began = time.thread_time()
        try:
            found = read()
            if payer_of is not None:
                payer = payer_of(found)
            return found
        finally:
            self._charge(payer, time.thread_time() - began)


def _step_back() -> None:
    """Linux keeps a priority for each thread, and lets any be lowered."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + _NICENESS)
